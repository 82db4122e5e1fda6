//! Boards made of files.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tempfile::TempDir;

use super::{Board, Gate, Limits, Meter, Objection, Rails, Readings, Supply};

/// A board in a folder of its own.
pub(crate) struct Fake(TempDir);

impl Fake {
    /// A board of whose files there are these.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let fake = Fake(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| fake.set(path, text));
        fake
    }

    /// Orin NX with JetPack 6, as its files read.
    pub(crate) fn orin_nx() -> Self {
        Self::new(&[
            ("proc/device-tree/model", "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0"),
            ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 900000 kB\nMemAvailable:    8000000 kB\n"),
            ("proc/self/cgroup", "0::/system.slice/fedtt-edge.service\n"),
            ("proc/loadavg", "0.52 0.58 0.59 1/459 11206\n"),
            ("proc/stat", "cpu  1000 0 0 9000 0 0 0 0 0 0\ncpu0 500 0 0 4500 0\ncpu1 500 0 0 4500 0\nintr 1\n"),
            ("proc/self/stat", "7 (fed (tt) x) S 1 7 7 0 -1 4194304 1 0 0 0 30 10 0 0 20 0 1 0 5\n"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48593\n"),
            ("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "-256000\n"),
            ("sys/class/thermal/thermal_zone10/type", "tj-thermal\n"),
            ("sys/class/thermal/thermal_zone10/temp", "49187\n"),
            ("etc/nvpmodel.conf", NVPMODEL),
            ("var/lib/nvpmodel/status", "pmode:0002\n"),
            ("sys/class/hwmon/hwmon0/name", "pwmfan\n"),
            ("sys/class/hwmon/hwmon3/name", "ina3221\n"),
            ("sys/class/hwmon/hwmon3/in1_label", "VDD_IN\n"),
            ("sys/class/hwmon/hwmon3/in1_input", "5000\n"),
            ("sys/class/hwmon/hwmon3/curr1_input", "1300\n"),
            ("sys/class/hwmon/hwmon3/in2_label", "VDD_CPU_GPU_CV\n"),
            ("sys/class/hwmon/hwmon3/in2_input", "5000\n"),
            ("sys/class/hwmon/hwmon3/curr2_input", "400\n"),
            ("sys/class/hwmon/hwmon3/in3_label", "NC\n"),
            ("sys/class/hwmon/hwmon3/in7_label", "sum of shunt voltages\n"),
        ])
    }

    pub(crate) fn board(&self) -> Board {
        Board::at(self.0.path())
    }

    /// Writes one of its files.
    pub(crate) fn set(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.0.path().join(path)).unwrap();
    }

    /// The temperature of its junction, in degrees.
    pub(crate) fn heat(&self, celsius: u32) {
        self.set("sys/class/thermal/thermal_zone10/temp", &format!("{}\n", celsius * 1000));
    }
}

const NVPMODEL: &str = "# comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_0 /sys/devices/system/cpu/cpu0/online\n\
                        < POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_15W >\n\
                        # mandatory\n< PM_CONFIG DEFAULT=0 >\n";

#[test]
fn an_orin_tells_what_it_is_and_how_it_does() {
    let fake = Fake::orin_nx();
    let readings = fake.board().read();
    assert_eq!(readings.model.as_deref(), Some("NVIDIA Jetson Orin NX Engineering Reference Developer Kit"));
    let memory = readings.memory.unwrap();
    assert_eq!((memory.total, memory.available, memory.limited), (16_000_000 << 10, 8_000_000 << 10, false));
    // Switched-off zones are absent; names with numbers come in the order of the numbers.
    let zones: Vec<(&str, f64)> = readings.zones.iter().map(|z| (z.name.as_str(), z.celsius)).collect();
    assert_eq!(zones, [("cpu-thermal", 48.593), ("tj-thermal", 49.187)]);
    assert_eq!(readings.hottest().unwrap().name, "tj-thermal");
    assert_eq!(readings.mode.unwrap().to_string(), "MODE_15W (2)");
    assert_eq!(readings.watts, Some(6.5));
    assert_eq!(fake.board().rails().names(), ["VDD_IN", "VDD_CPU_GPU_CV"]);
    assert_eq!(readings.supply, Supply::default());
    let load = readings.load.unwrap();
    assert_eq!((load.minute, load.processors, load.busy, load.own), (0.52, 2, 1000, 40));
}

#[test]
fn a_board_that_tells_nothing_has_no_readings() {
    let fake = Fake::new(&[]);
    assert_eq!(fake.board().read(), Readings::default());
    assert!(Meter::start(&fake.board()).is_none());
    let mut gate = Gate::new(Limits { mains_only: true, max_load: Some(0.1), ..Limits::default() });
    assert_eq!(gate.objection(&fake.board().read(), 1 << 40), None, "a limit on the unknown is none");
}

#[test]
fn absurd_readings_are_ignored() {
    let fake = Fake::orin_nx();
    for absurd in ["-256000", "900000", "hot", "", "12345678901234567890123"] {
        fake.set("sys/class/thermal/thermal_zone10/temp", absurd);
        assert_eq!(fake.board().read().zones.len(), 1, "{absurd}");
    }
    for absurd in ["-1", "65535", "", "n/a", "99999999999999999999"] {
        fake.set("sys/class/hwmon/hwmon3/curr1_input", absurd);
        assert_eq!(fake.board().read().watts, None, "{absurd}");
    }
    for (path, absurd) in [("proc/meminfo", "MemTotal: lots kB"), ("proc/loadavg", "nan 1 1"), ("proc/stat", "cpu x")] {
        fake.set(path, absurd);
    }
    let readings = fake.board().read();
    assert_eq!((readings.memory, readings.load), (None, None));
    fake.set("var/lib/nvpmodel/status", "pmode:many");
    assert_eq!(fake.board().read().mode.unwrap().to_string(), "MAXN (0)", "the configured default");
}

#[test]
fn rails_of_older_and_larger_boards_are_known() {
    let nano = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
    let nano = Fake::new(&[
        (&format!("{nano}/rail_name_0"), "POM_5V_IN\n"),
        (&format!("{nano}/in_power0_input"), "2150\n"),
        (&format!("{nano}/rail_name_1"), "POM_5V_GPU\n"),
        (&format!("{nano}/in_power1_input"), "0\n"),
    ]);
    assert_eq!(nano.board().rails().watts(), Some(2.15));
    let mut files = Vec::new();
    let rails = [("VDD_GPU_SOC", 2000), ("VDD_CPU_CV", 500), ("VIN_SYS_5V0", 1000)];
    for (i, (name, milliamperes)) in rails.iter().enumerate() {
        let of = |what: &str| format!("sys/class/hwmon/hwmon1/{what}");
        files.push((of(&format!("in{}_label", i + 1)), name.to_string()));
        files.push((of(&format!("in{}_input", i + 1)), "10000".into()));
        files.push((of(&format!("curr{}_input", i + 1)), milliamperes.to_string()));
    }
    files.push(("sys/class/hwmon/hwmon1/name".into(), "ina3221".into()));
    // Fed by VIN_SYS_5V0 and not counted again.
    for (name, text) in
        [("name", "ina3221"), ("in2_label", "VDDQ_VDD2_1V8AO"), ("in2_input", "5000"), ("curr2_input", "700")]
    {
        files.push((format!("sys/class/hwmon/hwmon2/{name}"), text.into()));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let agx = Fake::new(&files);
    assert_eq!(agx.board().rails().watts(), Some(35.0));
    agx.remove("sys/class/hwmon/hwmon1/in2_label");
    assert_eq!(agx.board().rails().watts(), None, "a part is not the whole");
    assert_eq!(agx.board().rails().read().len(), 3);
}

#[test]
fn control_groups_bound_memory() {
    let group = "sys/fs/cgroup/system.slice/fedtt-edge.service";
    let fake = Fake::orin_nx();
    fake.set(&format!("{group}/memory.max"), "1073741824\n");
    fake.set(&format!("{group}/memory.current"), "805306368\n");
    fake.set(&format!("{group}/memory.stat"), "anon 5\ninactive_file 268435456\n");
    fake.set("sys/fs/cgroup/system.slice/memory.max", "max\n");
    let memory = fake.board().read().memory.unwrap();
    assert_eq!((memory.total, memory.available, memory.limited), (1 << 30, 512 << 20, true));
    // Beyond what is held back work all but stands still.
    fake.set(&format!("{group}/memory.high"), "939524096\n");
    let memory = fake.board().read().memory.unwrap();
    assert_eq!((memory.total, memory.available, memory.limited), (896 << 20, 384 << 20, true));
    // As another process sees it.
    fake.set("proc/self/cgroup", "0::/user.slice\n");
    fake.set("proc/77/cgroup", "0::/system.slice/fedtt-edge.service\n");
    assert!(!fake.board().read().memory.unwrap().limited);
    assert_eq!(fake.board().memory_of(77), Some(memory));
    // Version 1, with a number that stands for no limit on the way up.
    let fake = Fake::orin_nx();
    fake.set("proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/docker/abc\n");
    fake.set("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "536870912");
    fake.set("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "134217728");
    fake.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
    fake.set("sys/fs/cgroup/memory/memory.usage_in_bytes", "1");
    let memory = fake.board().read().memory.unwrap();
    assert_eq!((memory.total, memory.available), (512 << 20, 384 << 20));
}

#[test]
fn a_service_that_does_not_run_yet_has_the_bounds_of_its_unit() {
    let state = std::path::Path::new("/var/lib/fedtt");
    let fake = Fake::orin_nx();
    let memory =
        |fake: &Fake| fake.board().memory_of_service("fedtt-edge.service", state).map(|m| (m.total, m.available));
    assert_eq!(memory(&fake), None);
    fake.set("usr/lib/systemd/system/fedtt-edge.service", include_str!("../../../cross/systemd/fedtt-edge.service"));
    assert_eq!(memory(&fake), Some((16_000_000 << 10, 8_000_000 << 10)), "nothing bounds it");
    let limits = include_str!("../../../cross/systemd/fedtt-edge.service.d/50-limits.conf");
    fake.set("usr/lib/systemd/system/fedtt-edge.service.d/50-limits.conf", limits);
    assert_eq!(memory(&fake), Some((11_200_000 << 10, 8_000_000 << 10)), "held back from 70 % on");
    fake.set("etc/systemd/system/fedtt-edge.service.d/override.conf", "[Service]\nMemoryHigh=\nMemoryMax=1G\n");
    assert_eq!(memory(&fake), Some((1 << 30, 1 << 30)));
    fake.set("etc/systemd/system/fedtt-edge.service.d/50-limits.conf", "[Unit]\nMemoryMax=1M\n");
    fake.set("etc/systemd/system/fedtt-edge.service.d/override.conf", "[Service]\nMemoryMax=infinity\n");
    assert_eq!(memory(&fake), Some((16_000_000 << 10, 8_000_000 << 10)), "the owner's file in place of the package's");
    let other = fake.board().memory_of_service("fedtt-edge.service", std::path::Path::new("/home/x/state"));
    assert_eq!(other, None, "another device");
}

#[test]
fn batteries_and_mains_are_told_apart() {
    let supply = |files: &[(&str, &str)]| {
        let fake = Fake::new(&[]);
        for (path, text) in files {
            fake.set(&format!("sys/class/power_supply/{path}"), text);
        }
        fake.board().read().supply
    };
    let ups = supply(&[("BAT0/type", "Battery"), ("BAT0/capacity", "64"), ("BAT0/status", "Discharging")]);
    assert_eq!(ups, Supply { mains: Some(false), battery: Some(64.0) });
    let fed = [
        ("BAT0/type", "Battery"),
        ("BAT0/capacity", "64"),
        ("BAT0/status", "Charging"),
        ("AC/type", "Mains"),
        ("AC/online", "1"),
    ];
    assert_eq!(supply(&fed), Supply { mains: Some(true), battery: Some(64.0) });
    let mouse =
        [("hid/type", "Battery"), ("hid/scope", "Device"), ("hid/capacity", "3"), ("hid/status", "Discharging")];
    assert_eq!(supply(&mouse), Supply::default());
    // The port of an Orin that is fed through its barrel jack.
    assert_eq!(supply(&[("ucsi/type", "USB"), ("ucsi/online", "0")]), Supply::default());
    let absurd = [("BAT0/type", "Battery"), ("BAT0/capacity", "655"), ("BAT0/status", "Full")];
    assert_eq!(supply(&absurd), Supply { mains: Some(true), battery: None });
}

#[test]
fn heat_stops_training_until_the_board_has_cooled() {
    let fake = Fake::orin_nx();
    let mut gate = Gate::new(Limits { max_temperature: 80.0, resume_temperature: 70.0, ..Limits::default() });
    let mut objects = |celsius| {
        fake.heat(celsius);
        gate.objection(&fake.board().read(), 0).map(|o| o.to_string())
    };
    assert_eq!(objects(80), None);
    assert_eq!(objects(81).as_deref(), Some("tj-thermal has 81 °C and must cool to 70"));
    assert_eq!(objects(75).as_deref(), Some("tj-thermal has 75 °C and must cool to 70"));
    assert_eq!(objects(70), None);
    assert_eq!(objects(75), None);
}

#[test]
fn memory_mode_and_power_are_looked_at() {
    let fake = Fake::orin_nx();
    let object = |limits: Limits, need| Gate::new(limits).objection(&fake.board().read(), need).map(|o| o.to_string());
    assert_eq!(object(Limits::default(), 7 << 30), None);
    let short = "7812 MiB of memory are free, 8256 are needed";
    assert_eq!(object(Limits::default(), 8 << 30).as_deref(), Some(short));
    let modes =
        |modes: &[&str]| Limits { power_modes: modes.iter().map(ToString::to_string).collect(), ..Limits::default() };
    assert_eq!(object(modes(&["maxn", "MODE_15w"]), 0), None);
    assert_eq!(object(modes(&["2"]), 0), None);
    assert_eq!(object(modes(&["MAXN"]), 0).as_deref(), Some("power mode MODE_15W (2) is not among MAXN"));

    fake.set("sys/class/power_supply/BAT/type", "Battery");
    fake.set("sys/class/power_supply/BAT/capacity", "19");
    fake.set("sys/class/power_supply/BAT/status", "Discharging");
    let mains = Limits { mains_only: true, ..Limits::default() };
    assert_eq!(object(mains.clone(), 0).as_deref(), Some("it runs on its battery"));
    let mut gate = Gate::new(Limits::default());
    let mut charged = |charge: &str| {
        fake.set("sys/class/power_supply/BAT/capacity", charge);
        gate.objection(&fake.board().read(), 0).is_some()
    };
    // 25 % are wanted once it was below 20.
    assert_eq!(["20", "19", "22", "25", "22"].map(&mut charged), [false, true, true, false, false]);
    fake.set("sys/class/power_supply/BAT/status", "Charging");
    fake.set("sys/class/power_supply/BAT/capacity", "3");
    assert_eq!(object(mains, 0), None);
}

#[test]
fn other_programs_are_told_from_ones_own() {
    let fake = Fake::orin_nx();
    let mut gate = Gate::new(Limits { max_load: Some(0.5), ..Limits::default() });
    let mut at = |busy: u64, idle: u64, own: u64| {
        fake.set("proc/stat", &format!("cpu  {busy} 0 0 {idle} 0 0 0 0\ncpu0 0\ncpu1 0\n"));
        fake.set("proc/self/stat", &format!("7 (x) S 1 7 7 0 -1 4194304 1 0 0 0 {own} 0 0 0\n"));
        gate.objection(&fake.board().read(), 0)
    };
    assert_eq!(at(1000, 9000, 0), None);
    assert_eq!(at(1100, 9000, 90), None, "busy with its own work");
    let others = at(1200, 9010, 100);
    assert!(matches!(others, Some(Objection::Load { share, .. }) if (0.8..0.85).contains(&share)), "{others:?}");
    assert!(at(1201, 9010, 100).is_some(), "too short a time to tell anything new");
    assert!(at(1251, 9060, 100).is_some(), "half is not well below half");
    assert_eq!(at(1271, 9140, 100), None);
}

#[test]
fn the_process_that_trains_is_ones_own() {
    let fake = Fake::orin_nx();
    let mut gate = Gate::new(Limits { max_load: Some(0.5), ..Limits::default() });
    let mut at = |busy: u64, ended: u64, child: &str| {
        fake.set("proc/stat", &format!("cpu  {busy} 0 0 9000 0 0 0 0\ncpu0 0\ncpu1 0\n"));
        fake.set("proc/self/stat", &format!("7 (x) S 1 7 7 0 -1 4194304 1 0 0 0 5 0 {ended} 0\n"));
        fake.set("proc/70/stat", child);
        gate.objection(&fake.board().read(), 0)
    };
    let child = |parent: u64, ticks: u64| format!("70 (train er) R {parent} 70 7 0 -1 64 1 0 0 0 {ticks} 1 0 0\n");
    assert_eq!(at(1000, 0, &child(7, 10)), None);
    assert_eq!(at(1100, 0, &child(7, 105)), None, "a child trains");
    assert_eq!(at(1200, 206, "gone"), None, "and has ended");
    assert_eq!(at(1300, 206, &child(8, 0)), Some(Objection::Load { share: 1.0, most: 0.5 }), "another's");
}

#[test]
fn energy_is_power_over_time() {
    assert_eq!(Rails::integrate(&[(0.0, Some(4.0)), (1.0, Some(6.0)), (3.0, Some(6.0))]), Some(17.0));
    assert_eq!(Rails::integrate(&[(0.0, Some(4.0)), (1.0, None), (2.0, Some(4.0))]), Some(8.0), "a reading is missing");
    assert_eq!(Rails::integrate(&[(0.0, Some(4.0)), (60.0, Some(4.0)), (61.0, Some(4.0))]), Some(4.0), "a long gap");
    assert_eq!(Rails::integrate(&[(0.0, None), (1.0, None)]), None);
}

#[test]
fn a_meter_measures_the_whole_board_pauses_left_out() {
    let fake = Fake::orin_nx();
    let began = std::time::Instant::now();
    let meter = Meter::start(&fake.board()).unwrap();
    while began.elapsed() < Duration::from_millis(400) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let joules = meter.finish().unwrap();
    let (least, most) = (6.5 * 0.2, 6.5 * began.elapsed().as_secs_f64());
    assert!((least..=most).contains(&joules), "{joules} J of at most {most}");

    let meter = Meter::start(&fake.board()).unwrap();
    meter.pause();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let joules = meter.finish().unwrap_or(0.0);
    assert!(joules < 6.5 * 0.25, "{joules} J in a pause");
}

#[test]
fn limits_out_of_range_are_named() {
    let wrong = [
        (Limits { max_temperature: f64::NAN, ..Limits::default() }, "limits.max_temperature"),
        (Limits { resume_temperature: 86.0, ..Limits::default() }, "limits.resume_temperature"),
        (Limits { min_battery: 101.0, ..Limits::default() }, "limits.min_battery"),
        (Limits { max_load: Some(0.0), ..Limits::default() }, "limits.max_load"),
    ];
    for (limits, field) in wrong {
        assert_eq!(limits.check().unwrap_err().0, field);
    }
    assert!(Limits::default().check().is_ok() && Limits::none().check().is_ok());
}
