#![allow(clippy::unwrap_used)]

use super::*;

/// The outputs of a program's text on inputs, on one thread.
fn outputs(text: &str, inputs: &[(&[usize], &[f32])]) -> Vec<(Vec<usize>, Vec<f32>)> {
    let program: Program = text.parse().unwrap();
    assert_eq!(program.to_string(), text, "a program's text is what it was read from");
    let dims: Vec<&[usize]> = inputs.iter().map(|(dims, _)| *dims).collect();
    let shape = RowShape::common(&dims).unwrap();
    let extents = run::output_extents(&program, &shape, &dims);
    let mut made: Vec<(Vec<usize>, Vec<f32>)> = extents
        .into_iter()
        .map(|extent| (shape.dims(extent), vec![f32::NAN; shape.dims(extent).iter().product()]))
        .collect();
    let mut slices: Vec<&mut [f32]> = made.iter_mut().map(|(_, data)| data.as_mut_slice()).collect();
    run(&program, &shape, inputs, &mut slices, |pieces, work| (0..pieces).for_each(work));
    made
}

fn one(text: &str, inputs: &[(&[usize], &[f32])]) -> Vec<f32> {
    outputs(text, inputs).remove(0).1
}

fn wave(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * step).sin() * 3.0).collect()
}

#[test]
fn elementary_functions_are_right_to_a_millionth() {
    let x: Vec<f32> = (-4000..=4000).map(|i| i as f32 / 200.0).collect();
    let dims = [1, x.len()];
    let f64s = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(f64::from(x))).collect::<Vec<_>>();
    // The error function by its series of terms of one sign.
    let erf = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for n in 1..2000 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    };
    let normal = |x: f64| 0.5 * (1.0 + erf(x / 2f64.sqrt()));
    let bell = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let cases = [
        ("exp", f64s(&f64::exp)),
        ("erf", f64s(&erf)),
        ("gelu", f64s(&|x| x * normal(x))),
        ("gelu_slope", f64s(&|x| normal(x) + x * bell(x))),
        ("sigmoid", f64s(&|x| 1.0 / (1.0 + (-x).exp()))),
        ("tanh", f64s(&f64::tanh)),
        ("abs", f64s(&f64::abs)),
        ("neg", f64s(&|x| -x)),
        ("relu", f64s(&|x| x.max(0.0))),
    ];
    for (op, expected) in cases {
        let found = one(&format!("1 | {op} x0 | s0"), &[(&dims, &x)]);
        for ((x, found), expected) in x.iter().zip(found).zip(expected) {
            let off = (f64::from(found) - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-6, "{op}({x}) is {expected}, not {found}");
        }
    }
}

#[test]
fn the_ends_of_the_numbers_hold() {
    let x = [f32::NEG_INFINITY, -200.0, 0.0, 200.0, f32::INFINITY, f32::NAN];
    let of = |op: &str| one(&format!("1 | {op} x0 | s0"), &[(&[6], &x)]);
    assert_eq!(of("exp")[..5], [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]);
    assert_eq!(of("sigmoid")[..5], [0.0, 0.0, 0.5, 1.0, 1.0]);
    assert_eq!(of("tanh")[..5], [-1.0, -1.0, 0.0, 1.0, 1.0]);
    assert_eq!(of("sign")[..5], [-1.0, -1.0, 0.0, 1.0, 1.0]);
    assert_eq!(of("is_nan"), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    for op in ["exp", "sigmoid", "tanh", "sign", "relu", "gelu", "sqrt"] {
        assert!(of(op)[5].is_nan(), "{op} of what is no number");
    }
    assert!(
        one("2 | max x0 x1 | s0", &[(&[2], &[f32::NAN, 1.0]), (&[2], &[1.0, f32::NAN])]).iter().all(|x| x.is_nan())
    );
}

#[test]
fn softmax_over_rows_longer_and_shorter_than_a_tile() {
    let text = "1 | row_max x0; sub x0 s0; exp s1; sum s2; div s2 s3 | s4";
    for (rows, width) in [(3, 5), (7, 64), (2, 3000), (1000, 1), (5, 1024)] {
        let x = wave(rows * width, 0.7);
        let found = one(text, &[(&[rows, width], &x)]);
        for (row, x) in found.chunks(width).zip(x.chunks(width)) {
            let total: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            for (found, x) in row.iter().zip(x) {
                assert!((f64::from(*found) - f64::from(*x).exp() / total).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn inputs_of_every_form_are_broadcast() {
    let shape = [2, 3, 4, 5];
    let x = wave(120, 0.3);
    let forms: [&[usize]; 8] =
        [&[2, 3, 4, 5], &[5], &[1, 1, 1, 5], &[2, 1, 1, 5], &[3, 1, 1], &[2, 1, 4, 1], &[], &[4, 5]];
    for dims in forms {
        let y = wave(dims.iter().product(), 0.9);
        let found = one("2 | sub x0 x1 | s0", &[(&shape, &x), (dims, &y)]);
        for (at, found) in found.iter().enumerate() {
            let place = [at / 60, at / 20 % 3, at / 5 % 4, at % 5];
            let mut offset = 0;
            for (axis, &dim) in dims.iter().enumerate() {
                let at = place[axis + 4 - dims.len()];
                offset = offset * dim + if dim == 1 { 0 } else { at };
            }
            assert_eq!(*found, x[at] - y[offset], "{dims:?} at {place:?}");
        }
    }
    assert!(RowShape::common(&[&[2, 3], &[2, 4]]).is_none());
}

#[test]
fn values_of_a_row_and_values_for_a_row_meet() {
    // The larger of a row less its mean, where a row's mean is positive: as many outputs of either kind as are asked for.
    let text = "2 | mean x0; sub x0 s0; relu s0; where s2 s1 x1; row_max s3; add s4 1.0 | s3 s5 s0";
    let x = [1.0, 2.0, 3.0, -1.0, -2.0, -3.0];
    let found = outputs(text, &[(&[2, 3], &x), (&[1], &[7.0])]);
    assert_eq!(found[0], (vec![2, 3], vec![-1.0, 0.0, 1.0, 7.0, 7.0, 7.0]));
    assert_eq!(found[1], (vec![2, 1], vec![2.0, 8.0]));
    assert_eq!(found[2], (vec![2, 1], vec![2.0, -2.0]));
}

#[test]
fn any_dealing_of_the_pieces_gives_the_same_bits() {
    let text = "2 | mul x0 x1; sum s0; tanh s0; mul s2 s1 | s3 s1";
    let (rows, width) = (997, 96);
    let (x, y) = (wave(rows * width, 0.37), wave(width, 0.11));
    let inputs: [(&[usize], &[f32]); 2] = [(&[rows, width], &x), (&[width], &y)];
    let expected = outputs(text, &inputs);
    let program: Program = text.parse().unwrap();
    let shape = RowShape::common(&[&[rows, width], &[width]]).unwrap();
    let (mut wide, mut narrow) = (vec![0.0; rows * width], vec![0.0; rows]);
    run(&program, &shape, &inputs, &mut [&mut wide, &mut narrow], |pieces, work| {
        assert!(pieces > 2);
        std::thread::scope(|scope| {
            for first in 0..3 {
                scope.spawn(move || (first..pieces).step_by(3).for_each(work));
            }
        });
    });
    assert_eq!((wide, narrow), (expected[0].1.clone(), expected[1].1.clone()));
}

#[test]
fn an_empty_tensor_is_no_work() {
    assert_eq!(outputs("1 | neg x0; sum x0 | s0 s1", &[(&[0, 4], &[])])[1], (vec![0, 1], vec![]));
    assert_eq!(outputs("1 | sum x0 | s0", &[(&[3, 0], &[])])[0].1, [0.0; 3]);
}

#[test]
fn texts_that_are_no_program_are_refused() {
    for text in [
        "",
        "1 | neg x0",
        "1 | neg x1 | s0",
        "1 | neg s0 | s0",
        "1 | neg x0 | s1",
        "1 | nag x0 | s0",
        "1 | add x0 | s0",
        "1 | neg x0 | x0",
        "x | neg x0 | s0",
    ] {
        assert!(text.parse::<Program>().is_err(), "{text}");
    }
    let all = Unary::ALL.iter().map(|&op| Step::Unary(op, Source::Input(0)));
    let all = all.chain(Binary::ALL.iter().map(|&op| Step::Binary(op, Source::Input(0), Source::Number(-1.5e-7))));
    let all = all.chain(Reduce::ALL.iter().map(|&op| Step::Reduce(op, Source::Input(0))));
    let program = Program::new(1, all.collect(), vec![0, 2]).unwrap();
    assert_eq!(program.to_string().parse(), Ok(program));
}
