//! The known models: what the older daemon could run, and what is used most today.
//!
//! ```text
//!  name, dimensions, window in tokens, pooling       as the model cards and configurations state them
//!  .from(repository, graph)                          where the export is, if its own repository has none by the usual name
//!  .prompts(query, document)                         "" where the publishers put nothing there
//!  .tasks(query, document)                           by name, where the graph takes the number of one
//! ```
//!
//! Exports of other organizations are those that the package fastembed (0.9) downloads for the same model.

use super::entry::{KnownModel, model};
use crate::embedding::pooling::PoolingMode;

const MEAN: Option<PoolingMode> = Some(PoolingMode::Mean);
const CLS: Option<PoolingMode> = Some(PoolingMode::Cls);
const LAST: Option<PoolingMode> = Some(PoolingMode::LastToken);

/// The query instruction of the English BGE models, which others have taken over.
const SEARCHING: &str = "Represent this sentence for searching relevant passages: ";
/// The one of Qwen3-Embedding for search on the web.
const QWEN3_QUERY: &str =
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:";

/// All known models.
pub(crate) static KNOWN: &[KnownModel] = &[
    // sentence-transformers
    model("sentence-transformers/all-MiniLM-L6-v2", 384, 256, MEAN)
        .aliases(&["all-MiniLM-L6-v2"])
        .prompts("", "")
        .license("Apache-2.0"),
    model("sentence-transformers/all-MiniLM-L12-v2", 384, 128, MEAN)
        .aliases(&["microsoft/all-MiniLM-L12-v2", "all-MiniLM-L12-v2"])
        .prompts("", "")
        .license("Apache-2.0"),
    model("sentence-transformers/all-mpnet-base-v2", 768, 384, MEAN)
        .aliases(&["microsoft/all-mpnet-base-v2", "all-mpnet-base-v2"])
        .prompts("", "")
        .license("Apache-2.0"),
    model("sentence-transformers/multi-qa-mpnet-base-dot-v1", 768, 512, CLS)
        .aliases(&["transformers/multi-qa-mpnet-base-dot-v1", "multi-qa-mpnet-base-dot-v1"])
        .prompts("", ""),
    // BAAI
    model("BAAI/bge-small-en", 384, 512, CLS)
        .from("Qdrant/bge-small-en", "model_optimized.onnx")
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-base-en", 768, 512, CLS)
        .from("Qdrant/fast-bge-base-en", "model_optimized.onnx")
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-large-en", 1024, 512, CLS)
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-small-en-v1.5", 384, 512, CLS)
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-base-en-v1.5", 768, 512, CLS)
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-large-en-v1.5", 1024, 512, CLS)
        .prompts(SEARCHING, "")
        .license("MIT"),
    model("BAAI/bge-m3", 1024, 8192, CLS)
        .prompts("", "")
        .license("MIT"),
    // E5
    model("intfloat/e5-base-v2", 768, 512, MEAN)
        .prompts("query: ", "passage: ")
        .license("MIT"),
    model("intfloat/e5-large-v2", 1024, 512, MEAN)
        .prompts("query: ", "passage: ")
        .license("MIT"),
    model("intfloat/multilingual-e5-small", 384, 512, MEAN)
        .prompts("query: ", "passage: ")
        .license("MIT"),
    model("intfloat/multilingual-e5-base", 768, 512, MEAN)
        .prompts("query: ", "passage: ")
        .license("MIT"),
    model("intfloat/multilingual-e5-large", 1024, 512, MEAN)
        .prompts("query: ", "passage: ")
        .license("MIT"),
    // GTE
    model("thenlper/gte-base", 768, 512, MEAN)
        .prompts("", "")
        .license("MIT"),
    model("thenlper/gte-large", 1024, 512, MEAN)
        .from("Qdrant/gte-large-onnx", "model.onnx")
        .prompts("", "")
        .license("MIT"),
    model("Alibaba-NLP/gte-modernbert-base", 768, 8192, CLS)
        .prompts("", "")
        .license("Apache-2.0"),
    // Jina
    model("jinaai/jina-embeddings-v2-small-en", 512, 8192, MEAN)
        .from("Xenova/jina-embeddings-v2-small-en", "onnx/model.onnx")
        .prompts("", "")
        .license("Apache-2.0"),
    model("jinaai/jina-embeddings-v2-base-en", 768, 8192, MEAN)
        .from("Xenova/jina-embeddings-v2-base-en", "onnx/model.onnx")
        .prompts("", "")
        .license("Apache-2.0"),
    model("jinaai/jina-embeddings-v3", 1024, 8192, MEAN)
        .tasks("retrieval.query", "retrieval.passage")
        .prompts(
            "Represent the query for retrieving evidence documents: ",
            "Represent the document for retrieval: ",
        )
        .license("CC-BY-NC-4.0"),
    model("jinaai/jina-embeddings-v5-text-nano-retrieval", 768, 8192, LAST)
        .prompts("Query: ", "Document: ")
        .license("CC-BY-NC-4.0"),
    // Nomic, Snowflake, Mixedbread
    model("nomic-ai/nomic-embed-text-v1.5", 768, 8192, MEAN)
        .prompts("search_query: ", "search_document: ")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-xs", 384, 512, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-s", 384, 512, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-m", 768, 512, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-m-long", 768, 2048, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-l", 1024, 512, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-m-v2.0", 768, 8192, CLS)
        .prompts("query: ", "")
        .license("Apache-2.0"),
    model("Snowflake/snowflake-arctic-embed-l-v2.0", 1024, 8192, CLS)
        .prompts("query: ", "")
        .license("Apache-2.0"),
    model("mixedbread-ai/mxbai-embed-large-v1", 1024, 512, CLS)
        .prompts(SEARCHING, "")
        .license("Apache-2.0"),
    // Decoders
    model("Qwen/Qwen3-Embedding-0.6B", 1024, 32768, LAST)
        .from("Qdrant/Qwen3-Embedding-0.6B-onnx", "onnx/model.onnx")
        .prompts(QWEN3_QUERY, "")
        .license("Apache-2.0"),
    model("google/embeddinggemma-300m", 768, 2048, MEAN)
        .from("onnx-community/embeddinggemma-300m-ONNX", "onnx/model.onnx")
        .prompts("task: search result | query: ", "title: none | text: ")
        .license("Gemma"),
    // Others of the older daemon
    model("llmrails/ember-v1", 1024, 512, None).license("MIT"),
    model("llmware/industry-bert-insurance-v0.1", 768, 512, None),
    model("clip/ViT-B-32-textual", 512, 77, None)
        .from("Qdrant/clip-ViT-B-32-text", "model.onnx")
        .prompts("", "")
        .license("MIT"),
    model("naver/splade-v3", 30522, 512, None)
        .license("CC-BY-NC-SA-4.0")
        .unsupported(
            "its vectors are sparse, one weight for each of 30522 tokens, and vector columns hold dense ones; use a dense \
             model",
        ),
    // Static models
    model("minishlab/potion-base-8M", 256, 512, MEAN)
        .prompts("", "")
        .license("MIT"),
    model("minishlab/potion-retrieval-32M", 512, 512, MEAN)
        .prompts("", "")
        .license("MIT"),
    model("minishlab/potion-multilingual-128M", 256, 512, MEAN)
        .prompts("", "")
        .license("MIT"),
];
