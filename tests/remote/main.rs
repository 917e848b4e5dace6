//! The client of models elsewhere, against a server that misbehaves when told to.

mod answers;
mod failures;
mod fleets;
mod limits;
mod requests;
mod texts;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use lantern::embedding::{
    RemoteError, RemoteFleet, RemoteOptions, RemotePatience, RemoteVector, TextRole,
};
use serde_json::{Map, Value, json};
use testkit::StubEngine;
use testkit::stub_engine::vector_of;

/// The length of a stub's vectors.
const DIMENSIONS: usize = 8;

/// One or several stubs as a job sees them.
struct Client {
    options: RemoteOptions,
    fleet: RemoteFleet,
}

type Results = Vec<Result<RemoteVector, RemoteError>>;

impl Client {
    fn new(stub: &StubEngine) -> Self {
        Self::with(&[stub], json!({}))
    }

    /// A client with these `runtime_params` beside `base_url`.
    fn with(stubs: &[&StubEngine], parameters: Value) -> Self {
        Self::of("openai", stubs, parameters)
    }

    fn of(runtime: &str, stubs: &[&StubEngine], parameters: Value) -> Self {
        let patience = RemotePatience {
            first_pause: Duration::from_millis(5),
            max_pause: Duration::from_millis(50),
            trouble: Duration::from_secs(60),
            ..RemotePatience::default()
        };
        Self::patient(runtime, stubs, parameters, patience)
    }

    /// A client that gives up at once when nothing succeeds.
    fn impatient(stubs: &[&StubEngine], parameters: Value) -> Self {
        let patience = RemotePatience {
            first_pause: Duration::from_millis(5),
            max_pause: Duration::from_millis(20),
            trouble: Duration::from_millis(200),
            ..RemotePatience::default()
        };
        Self::patient("openai", stubs, parameters, patience)
    }

    fn patient(
        runtime: &str,
        stubs: &[&StubEngine],
        parameters: Value,
        patience: RemotePatience,
    ) -> Self {
        let urls: Vec<String> = stubs.iter().map(|stub| stub.url()).collect();
        let mut object = Map::from_iter([("base_url".to_owned(), json!(urls))]);
        object.extend(parameters.as_object().expect("an object").clone());
        let parameters = Value::Object(object).to_string();
        let options = RemoteOptions::new(runtime, "stub", Some(&parameters)).unwrap();
        let fleet = RemoteFleet::with_patience(&options, patience).unwrap();
        Self { options, fleet }
    }

    async fn embed(&self, texts: &[&str]) -> Result<Results, RemoteError> {
        let texts: Vec<Arc<str>> = texts.iter().map(|text| Arc::from(*text)).collect();
        self.fleet
            .embed_each(&self.options, TextRole::Document, &texts)
            .await
    }

    /// Embeds texts, each of which must get its own vector.
    async fn embed_all(&self, texts: &[&str]) {
        let results = self.embed(texts).await.unwrap();
        assert_vectors(texts, &results);
    }
}

fn assert_vectors(texts: &[&str], results: &Results) {
    assert_eq!(texts.len(), results.len());
    for (text, result) in texts.iter().zip(results) {
        let vector = &result.as_ref().unwrap().vector;
        assert_eq!(*vector, vector_of(text, DIMENSIONS), "{text}");
    }
}

/// Different texts of two words.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text {number}")).collect()
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
