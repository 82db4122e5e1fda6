//! The thread that answers.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use tokio::sync::oneshot;

use crate::adapter_file::{AdapterFile, AdapterHeader};
use crate::batch::BatchShape;
use crate::data::{Dataset, Example};
use crate::fetch::Held;
use crate::model::AdaptedModel;
use crate::predict::{Prediction, check_pairs, predictions};
use crate::prepare::Encoding;
use crate::tokenize::TextEncoder;

/// Texts of one batch.
const BATCH: usize = 32;

/// A text, or a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// The second of a pair.
    pub pair: Option<String>,
}

/// An adapter at work.
pub struct Opened {
    /// The adapter.
    pub adapter: AdapterFile,
    /// Its backbone on an engine.
    pub model: AdaptedModel,
    /// Texts to ids.
    pub encoder: TextEncoder,
    /// Size of the vocabulary, where it is known.
    pub vocabulary: Option<usize>,
    /// Keeps its bundle where it is.
    pub held: Option<Held>,
}

/// Why nothing is predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Too many wait already.
    #[error("too many requests wait; try again")]
    Busy,
    /// There is no adapter yet.
    #[error("there is no adapter yet: there is one after a run's first round")]
    Empty,
    /// A text cannot be encoded.
    #[error("{0}")]
    Refused(String),
    /// The model failed, or is gone.
    #[error("{0}")]
    Failed(String),
}

/// Predictions, and the adapter they are of.
pub(super) type Answer = (Arc<AdapterHeader>, Vec<Prediction>);

type Reply = oneshot::Sender<Result<Answer, Unanswered>>;

enum Order {
    Predict(Vec<Text>, Reply),
    Use(Box<Opened>),
}

/// What predicts, for many at a time.
pub struct Model {
    orders: SyncSender<Order>,
    /// What is in use now.
    header: Arc<Shown>,
}

type Shown = Mutex<Option<Arc<AdapterHeader>>>;

impl Model {
    /// Starts the thread with the adapter to begin with, if there is one yet; `waiting` requests may wait for it.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(opened: Option<Opened>, waiting: usize) -> io::Result<Self> {
        let (orders, received) = mpsc::sync_channel(waiting);
        let header = Arc::new(Mutex::new(opened.as_ref().map(shown)));
        let in_use = header.clone();
        // Not joined: it ends with its orders.
        drop(Builder::new().name("predicting".into()).spawn(move || work(opened, &received, &in_use))?);
        Ok(Model { orders, header })
    }

    /// What the adapter in use is for, once there is one.
    pub fn header(&self) -> Option<Arc<AdapterHeader>> {
        lock(&self.header).clone()
    }

    /// Uses another adapter from then on; waits until it does.
    ///
    /// # Errors
    /// When the thread is gone.
    pub(super) fn replace(&self, opened: Opened) -> Result<(), Unanswered> {
        self.orders.send(Order::Use(Box::new(opened))).map_err(|_| gone())
    }

    /// What is said of `texts`.
    pub(super) async fn predict(&self, texts: Vec<Text>) -> Result<Answer, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(Order::Predict(texts, reply)).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Busy,
            TrySendError::Disconnected(_) => gone(),
        })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Unanswered {
    Unanswered::Failed("the model is gone; its log has more".into())
}

fn shown(opened: &Opened) -> Arc<AdapterHeader> {
    Arc::new(opened.adapter.header.clone())
}

fn lock(header: &Shown) -> std::sync::MutexGuard<'_, Option<Arc<AdapterHeader>>> {
    header.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers in the order of the requests, as many as make a batch at a time.
fn work(mut opened: Option<Opened>, orders: &Receiver<Order>, in_use: &Shown) {
    let mut next = orders.recv().ok();
    while let Some(order) = next.take() {
        let mut batch = Vec::new();
        let mut texts = 0;
        let mut waiting = Some(order);
        while let Some(order) = waiting.take() {
            match order {
                Order::Use(other) if batch.is_empty() => {
                    *lock(in_use) = Some(shown(&other));
                    opened = Some(*other);
                }
                // What came before it is answered by the adapter of then.
                order @ Order::Use(_) => {
                    next = Some(order);
                    break;
                }
                Order::Predict(of, reply) => {
                    texts += of.len();
                    batch.push((of, reply));
                }
            }
            if texts < BATCH {
                waiting = orders.try_recv().ok();
            }
        }
        match &mut opened {
            _ if batch.is_empty() => {}
            Some(opened) => {
                let header = shown(opened);
                answer(opened, &header, batch);
            }
            None => batch.into_iter().for_each(|(_, reply)| {
                // Whoever asked may be gone.
                let _ = reply.send(Err(Unanswered::Empty));
            }),
        }
        if next.is_none() {
            next = orders.recv().ok();
        }
    }
}

fn answer(opened: &mut Opened, header: &Arc<AdapterHeader>, batch: Vec<(Vec<Text>, Reply)>) {
    let all: Vec<&Text> = batch.iter().flat_map(|(texts, _)| texts).collect();
    match run(opened, &all) {
        Ok(predictions) => {
            let mut predictions = predictions.into_iter();
            for (texts, reply) in batch {
                let own = predictions.by_ref().take(texts.len()).collect();
                // Whoever asked may be gone.
                let _ = reply.send(Ok((header.clone(), own)));
            }
        }
        // It may be the fault of one of them: each by itself.
        Err(_) if batch.len() > 1 => {
            for (texts, reply) in batch {
                let outcome = run(opened, &texts.iter().collect::<Vec<_>>());
                let _ = reply.send(outcome.map(|own| (header.clone(), own)));
            }
        }
        Err(reason) => batch.into_iter().for_each(|(_, reply)| {
            let _ = reply.send(Err(reason.clone()));
        }),
    }
}

fn run(opened: &mut Opened, texts: &[&Text]) -> Result<Vec<Prediction>, Unanswered> {
    let Opened { adapter: AdapterFile { header, set }, model, encoder, vocabulary, .. } = opened;
    let example = |(line, text): (usize, &&Text)| Example {
        text: text.text.clone(),
        pair: text.pair.clone(),
        label: None,
        line: line + 1,
    };
    let data = Dataset { name: "the request".into(), examples: texts.iter().enumerate().map(example).collect() };
    check_pairs(header, &data).map_err(|e| Unanswered::Refused(e.to_string()))?;
    let encoding = Encoding {
        encoder,
        vocabulary: *vocabulary,
        task: header.task,
        labels: header.labels.as_ref(),
        scale: header.scale,
    };
    let encoded = encoding.bare(&data).map_err(|e| Unanswered::Refused(e.to_string()))?;
    let rows = data.examples.len().clamp(1, BATCH);
    let shape = BatchShape { rows, max_length: encoder.max_length(), pad_id: encoder.pad_id() };
    predictions(model, set, header, &data, &encoded, shape).map_err(|e| Unanswered::Failed(e.to_string()))
}
