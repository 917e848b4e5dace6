//! `lantern-cli embed`: prints the vectors of texts.

use std::io::{IsTerminal, stdin};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::engine_arguments::EngineArguments;
use super::json_flag::JsonFlag;
use super::{input, output, stderr};
use crate::embedding::{Embedded, Engine, Model, ModelName, ModelOptions, TextRole};

/// The argument that stands for standard input.
const STANDARD_INPUT: &str = "-";
/// Lines that are embedded at a time, if so many are there.
const MAX_LINES: usize = 256;

/// Print the vector of each text, computed as a job with this model computes it
///
/// Prints one vector on each line, in the order of the texts. Up to rounding, the vectors are those that the daemon
/// writes for the same texts, so they can be compared with a column. To search by hand, embed the question with --query
/// and order by the distance to its vector.
#[derive(Args)]
pub struct Embed {
    /// The model: a name as in a job, which is downloaded if it is not here, or the path of a folder
    #[arg(
        long,
        value_name = "NAME|DIR",
        default_value = "sentence-transformers/all-MiniLM-L6-v2",
        value_parser = ModelName::from_operator
    )]
    model: ModelName,

    /// How the model is used, as in a job's runtime_params: for example {"pooling": "cls"}
    #[arg(long, value_name = "JSON", value_parser = ModelOptions::from_json)]
    runtime_params: Option<ModelOptions>,

    /// How each vector is printed
    #[arg(long, value_enum, default_value_t = VectorFormat::Vector)]
    format: VectorFormat,

    #[command(flatten)]
    json: JsonFlag,

    /// Embed the texts as search queries rather than as documents. Matters only for models that expect different
    /// prompts before the two
    #[arg(long)]
    query: bool,

    /// Read a text from each line of standard input and print its vector, until the input ends. An empty line, which
    /// has no vector, is answered by an empty line (null in JSON)
    #[arg(long, conflicts_with = "texts")]
    stdin: bool,

    #[command(flatten)]
    engine: EngineArguments,

    /// The texts; "-" is all of standard input as one text. Without any, as --stdin, unless that is a terminal. An
    /// empty text has no vector and is an error
    texts: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VectorFormat {
    /// A literal of pgvector: [0.1,0.2]
    Vector,
    /// A JSON array
    Json,
}

/// Embeds the texts and prints their vectors.
pub async fn run(arguments: Embed) -> anyhow::Result<()> {
    let from_lines = arguments.stdin || arguments.texts.is_empty();
    if from_lines && !arguments.stdin && stdin().is_terminal() {
        bail!(NO_TEXT);
    }
    let texts = read_texts(&arguments.texts)?;
    let engine = arguments.engine.engine()?;
    let options = arguments.runtime_params.unwrap_or_default();
    let mut printer = Printer {
        model: engine.model_with(&arguments.model, &options).await?,
        engine,
        role: match arguments.query {
            true => TextRole::Query,
            false => TextRole::Document,
        },
        format: arguments.json.or(VectorFormat::Json, arguments.format),
        texts: 0,
        truncated: 0,
    };
    if from_lines {
        printer.print_lines().await?;
    } else {
        printer.print(texts).await?;
    }
    if printer.texts == 0 && !arguments.stdin {
        bail!(NO_TEXT);
    }
    printer.report_truncated();
    Ok(())
}

const NO_TEXT: &str = "there is no text: give texts as arguments, - to read one from standard input, or --stdin to \
                       read one from each of its lines";

/// The texts of the arguments, with standard input in the place of `-`.
fn read_texts(arguments: &[String]) -> anyhow::Result<Vec<String>> {
    let mut texts = arguments.to_vec();
    let mut places = texts.iter_mut().filter(|text| *text == STANDARD_INPUT);
    if let Some(text) = places.next() {
        *text = input::whole()?;
    }
    if places.next().is_some() {
        bail!("standard input (-) can be read only once");
    }
    if texts.iter().any(String::is_empty) {
        bail!("an empty text has no vector (a job stores NULL for it); remove the empty argument");
    }
    Ok(texts)
}

/// Embeds texts and prints their vectors.
struct Printer {
    engine: Engine,
    model: Model,
    role: TextRole,
    format: VectorFormat,
    /// Texts so far.
    texts: u64,
    /// Of these, those that were longer than the model's window.
    truncated: u64,
}

impl Printer {
    /// Prints the vector of each line of standard input as soon as it is there.
    async fn print_lines(&mut self) -> anyhow::Result<()> {
        let mut lines = input::lines()?;
        let mut ready = Vec::new();
        while lines.recv_many(&mut ready, MAX_LINES).await > 0 {
            let mut texts = Vec::new();
            let mut broken = None;
            for line in ready.drain(..) {
                match line {
                    Ok(text) => texts.push(text),
                    Err(error) => broken = Some(error),
                }
            }
            self.print(texts).await?;
            if let Some(error) = broken {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Prints the vectors of these texts.
    async fn print(&mut self, texts: Vec<String>) -> anyhow::Result<()> {
        let is_empty: Vec<bool> = texts.iter().map(String::is_empty).collect();
        let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let mut embedded = self
            .engine
            .embed_each(&self.model, self.role, texts)
            .await?
            .into_iter();
        for is_empty in is_empty {
            self.texts += 1;
            let vector = match is_empty {
                true => None,
                false => embedded.next(),
            };
            let vector = vector.map(|embedded| self.vector(embedded)).transpose()?;
            output::data(&format!("{}\n", self.literal(vector.as_deref())?))?;
        }
        Ok(())
    }

    fn vector(&mut self, embedded: Embedded) -> anyhow::Result<Vec<f32>> {
        self.truncated += u64::from(embedded.is_truncated);
        let number = self.texts;
        embedded
            .vector
            .with_context(|| format!("text {number} has no vector"))
    }

    fn literal(&self, vector: Option<&[f32]>) -> anyhow::Result<String> {
        Ok(match (self.format, vector) {
            (VectorFormat::Vector, None) => String::new(),
            (VectorFormat::Vector, Some(vector)) => vector_literal(vector),
            (VectorFormat::Json, vector) => serde_json::to_string(&vector)?,
        })
    }

    fn report_truncated(&self) {
        if self.truncated > 0 {
            stderr::line(&format!(
                "warning: {} of {} texts are longer than {}; their ends do not \
                 count",
                self.truncated,
                self.texts,
                self.model.window()
            ));
        }
    }
}

/// `[0.1,0.2]`: the input format of pgvector.
fn vector_literal(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}
