//! Clients written from the specification alone, in Python.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fleet::Fleet;

const PLAN: &str = "name = 'python'\nrounds = 4\nseed = 7\n[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\n\
    [adapter]\nbottleneck = 8\nrank = 2\n[schedule]\ncores = 'ends-and-one'\n[selection]\nmin = 2\n[collection]\ncount = { min = 2 }\n\
    [wire]\nchunk = 4096\n";

/// A client, killed when dropped.
struct Client(Option<Child>);

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Errors: it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "needs Python with cbor2, zstandard, paho-mqtt and cryptography; FEDTT_PYTHON names it"]
fn clients_in_another_language_take_part() {
    let mut fleet = Fleet::start(None, 0, PLAN, 0, Duration::ZERO);
    let python = std::env::var("FEDTT_PYTHON").unwrap_or("python3".into());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
    let broker = fleet.broker().to_string();
    let start = |name: &str| {
        let mut command = Command::new(&python);
        command.arg(&program).args(["--broker", &broker, "--bundle", fleet.bundle(), "--name", name]);
        Client(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    };
    let clients = [start("python-0"), start("python-1")];
    fleet.wait();
    for mut client in clients {
        let output = client.0.take().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("5 updates accepted"), "{said}");
    }
    let (summary, _) = fleet.outcome(4, &["python-0", "python-1"]);
    assert_eq!(summary["refused"]["malformed"], 0, "{summary}");
}
