//! Training, evaluation and prediction with tensor-train adapters on the device.
//!
//! [`source`] opens a backbone, [`data`] reads examples, [`tokenize`] and [`batch`] turn them into tensors, [`model`] is
//! the backbone with adapters on an engine, [`mod@train`] fits them, [`mod@evaluate`] and [`mod@predict`] use them, and
//! [`adapter_file`] keeps them. [`local`] is a device's part of a federated round,
//! [`round`] its side of the protocol, [`identity`] what it signs with, [`daemon`] all of it over MQTT.
#![forbid(unsafe_code)]

pub mod adapter_file;
pub mod adapters;
pub mod batch;
pub mod board;
pub mod daemon;
pub mod damper;
pub mod data;
pub mod doctor;
pub mod evaluate;
pub mod export;
pub mod fetch;
pub mod files;
pub mod flags;
pub mod identity;
pub mod local;
pub mod metrics;
pub mod model;
pub mod need;
pub mod predict;
pub mod prepare;
pub mod round;
pub mod serve;
pub mod source;
pub mod streams;
pub mod task;
pub mod tensors;
pub mod tokenize;
pub mod train;
