//! The binary `lantern-cli`. Everything is in the library, so that tests and benchmarks can use it.

fn main() -> std::process::ExitCode {
    lantern::cli::main()
}
