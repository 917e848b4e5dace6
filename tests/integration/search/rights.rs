//! A search as a role that may not read what it asks for.

use testkit::Scene;

use crate::search::{search, searchable_notes};

/// A connection string for the role, which is the owner's otherwise.
fn uri_as(scene: &Scene, role: &str) -> String {
    format!("{}?options=-c%20role%3D{role}", scene.database.uri())
}

#[tokio::test]
async fn the_error_names_who_asked_and_what_grants_the_rights() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    let role = format!("searcher_of_{}", scene.database.name());
    scene
        .sql(&format!(
            "ALTER TABLE notes ADD title text, ADD \"Lang \"\"x\" text; CREATE ROLE {role}; \
             GRANT SELECT (id, body, embedding) ON notes TO {role}"
        ))
        .await;
    let target = uri_as(&scene, &role);
    let asked = |more: &[&'static str]| {
        let arguments: Vec<String> = ["--target", &target]
            .iter()
            .chain(more)
            .map(|it| (*it).to_owned())
            .collect();
        let scene = &scene;
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            search(scene, &arguments).await
        }
    };
    let (status, _, said) = asked(&[]).await;
    assert_eq!(status, Some(0), "{said}");
    let columns = ["--columns", "title,Lang \"x,body"];
    let (status, _, said) = asked(&columns).await;
    let grant =
        format!("GRANT SELECT (\"title\", \"Lang \"\"x\") ON \"public\".\"notes\" TO \"{role}\";");
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("permission denied for table notes")
            && said.contains(&format!("the role \"{role}\" of "))
            && said.contains(&format!(
                "asked: run {grant}, or name another login with --target"
            )),
        "{said}"
    );
    let (_, _, said) = asked(&["--where", "views > 1"]).await;
    assert!(
        said.contains("SELECT on the columns of --where") && !said.contains("GRANT"),
        "{said}"
    );
    let both = [&columns[..], &["--where", "views > 1"]].concat();
    let (_, _, said) = asked(&both).await;
    assert!(
        said.contains(&grant) && said.contains("the columns of --where likewise"),
        "{said}"
    );

    // What the error says is enough.
    scene.sql(&grant).await;
    let (status, _, said) = asked(&columns).await;
    assert_eq!(status, Some(0), "{said}");
    scene.sql("REVOKE USAGE ON SCHEMA public FROM PUBLIC").await;
    let (status, _, said) = asked(&["--where", "views > 1"]).await;
    assert_eq!(status, Some(1), "{said}");
    let grant = format!("GRANT USAGE ON SCHEMA \"public\" TO \"{role}\";");
    assert!(said.contains(&grant), "{said}");
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
