//! Running a model on ONNX Runtime.

use ndarray::{ArrayD, CowArray, IxDyn};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{OutputSelector, RunOptions, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use super::placement::Placement;
use crate::{EngineError, Session, Tensor};

/// A model ready to run on ONNX Runtime.
pub(super) struct OrtSession {
    engine: String,
    session: ort::session::Session,
    /// Inputs and outputs are bound to the device rather than passed along.
    bound: bool,
    placement: Placement,
}

/// An input in the standard layout, borrowed where it has it already.
enum Input<'a> {
    F32(CowArray<'a, f32, IxDyn>),
    I64(CowArray<'a, i64, IxDyn>),
    I32(CowArray<'a, i32, IxDyn>),
    Bool(CowArray<'a, bool, IxDyn>),
}

impl<'a> Input<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        match tensor {
            Tensor::F32(a) => Input::F32(a.as_standard_layout()),
            Tensor::I64(a) => Input::I64(a.as_standard_layout()),
            Tensor::I32(a) => Input::I32(a.as_standard_layout()),
            Tensor::Bool(a) => Input::Bool(a.as_standard_layout()),
        }
    }

    fn value(&self) -> ort::Result<SessionInputValue<'_>> {
        Ok(match self {
            Input::F32(a) => TensorRef::from_array_view(a)?.into(),
            Input::I64(a) => TensorRef::from_array_view(a)?.into(),
            Input::I32(a) => TensorRef::from_array_view(a)?.into(),
            Input::Bool(a) => TensorRef::from_array_view(a)?.into(),
        })
    }
}

impl OrtSession {
    pub(super) fn new(engine: String, session: ort::session::Session, bound: bool, placement: Placement) -> Self {
        OrtSession { engine, session, bound, placement }
    }

    fn check_names(&self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<(), String> {
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|o| o.name().to_string()).collect::<Vec<_>>();
        let (known_inputs, known_outputs) = (names(self.session.inputs()), names(self.session.outputs()));
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !known_inputs.iter().any(|k| k == name)) {
            return Err(format!("the model has no input `{name}`; it has {}", known_inputs.join(", ")));
        }
        if let Some(name) = outputs.iter().find(|name| !known_outputs.iter().any(|k| k == *name)) {
            return Err(format!("the model has no output `{name}`; it has {}", known_outputs.join(", ")));
        }
        Ok(())
    }

    fn run_plain(&mut self, inputs: &[(&str, Input)], outputs: &[&str]) -> Result<Vec<Tensor>, String> {
        let values = inputs
            .iter()
            .map(|(name, input)| Ok((name.to_string(), input.value()?)))
            .collect::<ort::Result<Vec<_>>>()
            .map_err(text)?;
        let selected = outputs.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
        let options = run_options()?.with_outputs(selected);
        let results = self.session.run_with_options(values, &options).map_err(text)?;
        collect(&results, outputs)
    }

    fn run_bound(&mut self, inputs: &[(&str, Input)], outputs: &[&str]) -> Result<Vec<Tensor>, String> {
        let mut binding = self.session.create_binding().map_err(text)?;
        for (name, input) in inputs {
            binding.bind_input(*name, &*input.value().map_err(text)?).map_err(text)?;
        }
        let host =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput).map_err(text)?;
        for name in outputs {
            binding.bind_output_to_device(*name, &host).map_err(text)?;
        }
        let options = run_options()?;
        let results = self.session.run_binding_with_options(&binding, &options).map_err(text)?;
        collect(&results, outputs)
    }
}

impl Session for OrtSession {
    fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let run = self.check_names(inputs, outputs).and_then(|()| {
            let inputs: Vec<(&str, Input)> = inputs.iter().map(|(name, t)| (*name, Input::of(t))).collect();
            if self.bound { self.run_bound(&inputs, outputs) } else { self.run_plain(&inputs, outputs) }
        });
        run.map_err(|message| EngineError::Run { engine: self.engine.clone(), message })
    }

    fn placement(&self) -> String {
        match (self.placement.is_known(), self.bound) {
            (true, _) => self.placement.to_string(),
            (false, false) => "CPU".into(),
            (false, true) => "not said by ONNX Runtime".into(),
        }
    }
}

/// Failures are returned; ONNX Runtime need not print them as well.
fn run_options() -> Result<RunOptions, String> {
    let mut options = RunOptions::new().map_err(text)?;
    options.set_log_level(ort::logging::LogLevel::Fatal).map_err(text)?;
    Ok(options)
}

fn text(error: ort::Error) -> String {
    error.to_string()
}

fn collect(results: &SessionOutputs, outputs: &[&str]) -> Result<Vec<Tensor>, String> {
    let one =
        |name: &&str| tensor(name, results.get(name).ok_or_else(|| format!("output `{name}` did not come back"))?);
    outputs.iter().map(one).collect()
}

fn tensor(name: &str, value: &DynValue) -> Result<Tensor, String> {
    fn array<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> Result<ArrayD<T>, String> {
        value.try_extract_array::<T>().map(|a| a.to_owned()).map_err(text)
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(format!("output `{name}` is not a tensor"));
    };
    Ok(match ty {
        TensorElementType::Float32 => Tensor::F32(array(value)?),
        TensorElementType::Float16 => Tensor::F32(array::<half::f16>(value)?.mapv(f32::from)),
        TensorElementType::Float64 => Tensor::F32(array::<f64>(value)?.mapv(|x| x as f32)),
        TensorElementType::Int64 => Tensor::I64(array(value)?),
        TensorElementType::Int32 => Tensor::I32(array(value)?),
        TensorElementType::Bool => Tensor::Bool(array(value)?),
        other => return Err(format!("output `{name}` holds {other} elements, which are not passed on")),
    })
}
