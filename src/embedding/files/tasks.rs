//! The tasks of a model whose graph takes the number of one, beside the tokens (jina-embeddings-v3 and its kin).
//!
//! Such a model has weights of its own for each task, and the graph chooses them by an input. `config.json` lists the names
//! of the tasks in the order of their numbers, and what is put before the texts of each:
//!
//! ```json
//! {"lora_adaptations": ["retrieval.query", "retrieval.passage", "separation"],
//!  "task_instructions": {"retrieval.query": "query: ", "retrieval.passage": "passage: ", "separation": ""}}
//! ```

use std::collections::BTreeMap;

use crate::embedding::catalog::known::RoleTasks;
use crate::embedding::options::Task;
use crate::embedding::role::TextRole;

/// The tasks of queries and documents, where nothing is known of the model's name.
const OF_ROLES: RoleTasks = RoleTasks {
    query: "retrieval.query",
    document: "retrieval.passage",
};

/// The tasks of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    /// In the order of their numbers; none where no file names them.
    named: Vec<NamedTask>,
    /// The number of the task of queries, unless a job asks for another one.
    query: Option<u32>,
    /// That of documents.
    document: Option<u32>,
}

#[derive(Debug, Clone)]
struct NamedTask {
    name: String,
    /// What is put before a text; `None` if no file says it.
    instruction: Option<String>,
}

impl Tasks {
    /// The tasks of these names. `instructions` and `prompts` have what is put before their texts; `of_roles` is what is
    /// known of the model. Unless both roles have a task, neither is assumed to have one.
    pub(crate) fn new(
        names: Vec<String>,
        instructions: &BTreeMap<String, String>,
        prompts: &BTreeMap<String, String>,
        of_roles: Option<RoleTasks>,
    ) -> Self {
        let of_roles = of_roles.unwrap_or(OF_ROLES);
        let named = names.into_iter().map(|name| NamedTask {
            instruction: instructions.get(&name).or(prompts.get(&name)).cloned(),
            name,
        });
        let mut tasks = Self {
            named: named.collect(),
            query: None,
            document: None,
        };
        let numbers = (
            tasks.number(of_roles.query),
            tasks.number(of_roles.document),
        );
        if let (Some(query), Some(document)) = numbers {
            (tasks.query, tasks.document) = (Some(query), Some(document));
        }
        tasks
    }

    /// The number of the task that texts of this role have, unless a job asks for another one.
    pub(crate) fn of(&self, role: TextRole) -> Option<u32> {
        match role {
            TextRole::Query => self.query,
            TextRole::Document => self.document,
        }
    }

    /// What is put before the texts of a task, where the prompt of this role is put before others.
    pub(crate) fn prompt<'a>(&'a self, task: u32, role: TextRole, of_role: &'a str) -> &'a str {
        let named = self.named.get(task as usize);
        let instruction = named.and_then(|task| task.instruction.as_deref());
        let is_own = self.named.is_empty() || self.of(role) == Some(task);
        instruction.unwrap_or(if is_own { of_role } else { "" })
    }

    /// The number of the task that texts of this role have under the options of a job.
    ///
    /// # Errors
    ///
    /// If the model has no such task, or no task is known for the role.
    pub(crate) fn choose(&self, wanted: Option<&Task>, role: TextRole) -> Result<u32, String> {
        match wanted {
            None => self.of(role).ok_or_else(|| self.undecided(role)),
            Some(Task::Name(name)) => self.number(name).ok_or_else(|| self.unknown(name)),
            Some(Task::Number(number)) => {
                let is_known = self.named.is_empty() || (*number as usize) < self.named.len();
                is_known.then_some(*number).ok_or_else(|| {
                    let last = self.named.len() - 1;
                    format!(
                        "it has no task {number}; it has {} (0 to {last})",
                        self.names()
                    )
                })
            }
        }
    }

    /// The number of the task with this name.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        let place = self.named.iter().position(|task| task.name == name)?;
        u32::try_from(place).ok()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.named.iter().map(|task| task.name.as_str()).collect();
        names.join(", ")
    }

    fn undecided(&self, role: TextRole) -> String {
        let role = role.name();
        if self.named.is_empty() {
            return format!(
                "its graph takes the number of a task (task_id), and its config.json names no tasks (lora_adaptations); set \
                 task in runtime_params to the number that a {role} has, such as {{\"task\": {{\"query\": 0, \
                 \"document\": 1}}}}"
            );
        }
        format!(
            "its graph takes the number of a task (task_id), and which task a {role} has is not known; set task in \
             runtime_params to one of {}",
            self.names()
        )
    }

    fn unknown(&self, name: &str) -> String {
        if self.named.is_empty() {
            return format!(
                "its config.json names no tasks (lora_adaptations), so there is none named {name:?}; write the number of \
                 the task"
            );
        }
        format!("it has no task named {name:?}; it has {}", self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(names: &[&str]) -> Tasks {
        let texts = |texts: &[(&str, &str)]| {
            let texts = texts.iter();
            texts
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect()
        };
        Tasks::new(
            names.iter().map(ToString::to_string).collect(),
            &texts(&[("retrieval.query", "q: "), ("separation", "")]),
            &texts(&[("retrieval.passage", "p: "), ("retrieval.query", "not: ")]),
            None,
        )
    }

    const ALL: [&str; 4] = [
        "retrieval.query",
        "retrieval.passage",
        "separation",
        "other",
    ];

    #[test]
    fn roles_have_the_tasks_of_retrieval_where_the_model_has_both() {
        let of = |names: &[&str], role| tasks(names).choose(None, role);
        assert_eq!(of(&ALL, TextRole::Query), Ok(0));
        assert_eq!(of(&ALL, TextRole::Document), Ok(1));
        let said = of(&ALL[1..], TextRole::Document).unwrap_err();
        assert!(
            said.ends_with(
                "set task in runtime_params to one of retrieval.passage, separation, other"
            ),
            "{said}"
        );
        let said = of(&[], TextRole::Query).unwrap_err();
        assert!(said.contains("names no tasks (lora_adaptations)"), "{said}");
    }

    #[test]
    fn what_is_known_of_a_model_names_the_tasks_of_its_roles() {
        let known = RoleTasks {
            query: "separation",
            document: "other",
        };
        let names = ALL.iter().map(ToString::to_string).collect();
        let (none, task) = (BTreeMap::new(), TextRole::Document);
        let tasks = Tasks::new(names, &none, &none, Some(known));
        assert_eq!(
            (tasks.of(TextRole::Query), tasks.of(task)),
            (Some(2), Some(3))
        );
    }

    #[test]
    fn a_task_is_chosen_by_its_name_or_its_number() {
        let name = |name: &str| Task::Name(name.into());
        let choose = |names: &[&str], task| tasks(names).choose(Some(&task), TextRole::Query);
        assert_eq!(choose(&ALL, name("separation")), Ok(2));
        assert_eq!(choose(&ALL, Task::Number(3)), Ok(3));
        assert_eq!(choose(&[], Task::Number(7)), Ok(7));
        for (chosen, words) in [
            (
                choose(&ALL, name("separate")),
                "no task named \"separate\"; it has retrieval.query",
            ),
            (
                choose(&ALL, Task::Number(4)),
                "no task 4; it has retrieval.query, ",
            ),
            (
                choose(&[], name("separation")),
                "write the number of the task",
            ),
        ] {
            let said = chosen.unwrap_err();
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn the_instruction_of_a_task_is_its_own() {
        let (query, document) = (TextRole::Query, TextRole::Document);
        let tasks = tasks(&ALL);
        assert_eq!(tasks.prompt(0, query, "role: "), "q: ");
        assert_eq!(tasks.prompt(0, document, "role: "), "q: ");
        // As `config_sentence_transformers.json` has it, where `config.json` says nothing.
        assert_eq!(tasks.prompt(1, document, "role: "), "p: ");
        assert_eq!(tasks.prompt(2, query, "role: "), "");
        assert_eq!(tasks.prompt(3, query, "role: "), "");
        assert_eq!(Tasks::default().prompt(3, query, "role: "), "role: ");
    }
}
