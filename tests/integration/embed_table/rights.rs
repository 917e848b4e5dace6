//! What the role must be allowed, and nothing more.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use super::{NOTES, Scene, embed_as, scene_with};

/// The connection string of a role whose password is `x`.
pub fn uri_of(scene: &Scene, role: &str) -> String {
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a user");
    format!("postgresql://{role}:x@{place}")
}

#[tokio::test]
async fn a_role_needs_the_columns_alone_and_is_told_how_to_get_them() {
    let scene = scene_with(&format!(
        "CREATE SCHEMA app; {}",
        NOTES.replace("notes", "app.notes")
    ))
    .await;
    for (text, id) in [TIDES, MOON, CAVES, DESERT].iter().zip(1..) {
        scene.put_into("app.notes", id, text).await;
    }
    let role = format!("{}_writer", scene.database.name());
    scene
        .sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"))
        .await;
    let uri = uri_of(&scene, &role);
    let place = [
        "--schema",
        "app",
        "--table",
        "notes",
        "--src-column",
        "body",
        "--dst-column",
        "embedding",
        "--fingerprint-column",
        "mark",
    ];
    let mut rounds = Vec::new();
    loop {
        let ran = embed_as(&uri, &place).await;
        if ran.status == Some(0) {
            break;
        }
        let printed = ran.failed();
        let statements = statements_of(&printed);
        assert!(
            !statements.is_empty() && rounds.len() < 4,
            "{rounds:#?}: {printed}"
        );
        scene.sql(&statements.join(" ")).await;
        rounds.push(printed);
    }
    // Reading, new columns, and writing these.
    assert_eq!(rounds.len(), 3, "{rounds:#?}");
    assert_eq!(scene.wrong_vectors("app.notes", "body").await, "");
    let other = format!("SELECT has_table_privilege('{role}', 'app.notes', 'UPDATE')");
    assert_eq!(scene.value(&other).await, "false");
}

/// The statements that an error names.
fn statements_of(error: &str) -> Vec<String> {
    let begins = ["GRANT ", "ALTER TABLE "];
    let parts = error.split(';');
    let found = parts.filter_map(|part| {
        let start = begins.iter().filter_map(|begin| part.find(begin)).min()?;
        Some(format!("{};", &part[start..]))
    });
    found.collect()
}
