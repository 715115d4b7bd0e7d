//! Tests of the credentials.

#![allow(clippy::unwrap_used)]

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn credentials(&self, variables: &[(&str, &str)]) -> Credentials {
        let home = ("HOME".to_owned(), self.path("home").display().to_string());
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Credentials::new(&variables.chain([home]).collect())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }
}

fn found(credentials: &Credentials) -> Option<String> {
    let found = credentials.find("my-type", "acme", "secret").unwrap();
    found.map(|(secret, _)| secret.expose_str().unwrap().to_owned())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn variables_go_before_the_mounted_folder_and_that_before_the_home_folder() {
    let home = Home::new();
    let mounted = home.path("mounted").display().to_string();
    let variable = ("DOORBELL_CREDENTIAL_MY_TYPE__ACME__SECRET", "one\n");
    assert_eq!(found(&home.credentials(&[variable])), Some("one".to_owned()));
    assert_eq!(found(&home.credentials(&[])), None);
    home.write("home/.doorbell/credentials/my-type/acme/secret", "three\r\n");
    assert_eq!(found(&home.credentials(&[])), Some("three".to_owned()));
    home.write("mounted/my-type/acme/secret", "two\n\n");
    assert_eq!(found(&home.credentials(&[(FOLDER, &mounted)])), Some("two\n".to_owned()));
    assert_eq!(found(&home.credentials(&[(FOLDER, &mounted), variable])), Some("one".to_owned()));
}

#[test]
fn a_mounted_folder_of_links_is_read_and_its_hidden_entries_are_not() {
    let home = Home::new();
    home.write("mounted/..2026/my-type/acme/secret", "two");
    std::os::unix::fs::symlink("..2026", home.path("mounted/..data")).unwrap();
    std::os::unix::fs::symlink("..data/my-type", home.path("mounted/my-type")).unwrap();
    let credentials = home.credentials(&[(FOLDER, &home.path("mounted").display().to_string())]);
    assert_eq!(found(&credentials), Some("two".to_owned()));
    let listed = credentials.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].too_open, "the modes of a mounted folder are its keeper's matter");
}

#[test]
fn an_added_secret_is_found_listed_private_replaced_and_removed() {
    let home = Home::new();
    let credentials = home.credentials(&[]);
    let path = credentials.add("my-type", "acme", "secret", &Secret::new("one")).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&home.path("home/.doorbell")), 0o700);
    credentials.add("my-type", "acme", "secret", &Secret::new("two")).unwrap();
    assert_eq!(found(&credentials), Some("two".to_owned()));
    assert_eq!(credentials.fields("my-type", "acme").unwrap(), ["secret"]);
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let listed = credentials.list().unwrap();
    assert_eq!((listed[0].origin.as_str(), listed[0].too_open), (path.to_str().unwrap(), true));
    assert!(credentials.remove("my-type", "acme", "secret").unwrap());
    assert!(!credentials.remove("my-type", "acme", "secret").unwrap());
    assert!(credentials.list().unwrap().is_empty() && !home.path("home/.doorbell/credentials/my-type").exists());
}

#[test]
fn the_list_names_what_would_be_found() {
    let home = Home::new();
    home.write("home/.doorbell/credentials/my-type/acme/secret", "file");
    home.write("home/.doorbell/credentials/my-type/acme/other", "file");
    let credentials = home.credentials(&[("DOORBELL_CREDENTIAL_MY_TYPE__ACME__SECRET", "variable")]);
    let listed = credentials.list().unwrap();
    let listed: Vec<_> = listed.iter().map(|stored| (stored.kind.as_str(), stored.field.as_str())).collect();
    assert_eq!(listed, [("my-type", "other"), ("my_type", "secret")]);
    assert_eq!(credentials.fields("my-type", "acme").unwrap(), ["other", "secret"]);
}

#[test]
fn blank_secrets_and_names_that_lead_elsewhere_are_refused() {
    let home = Home::new();
    let credentials = home.credentials(&[]);
    assert!(credentials.add("my-type", "acme", "secret", &Secret::new(" \n")).is_err());
    assert!(!home.path("home").exists());
    for name in ["..", "", "a/b", "A", ".hidden"] {
        assert!(credentials.add("my-type", name, "secret", &Secret::new("x")).is_err(), "{name}");
        assert!(credentials.find("my-type", name, "secret").is_err(), "{name}");
        assert!(credentials.remove(name, "acme", "secret").is_err(), "{name}");
    }
    home.write("home/.doorbell/credentials/my-type/acme/secret/deeper", "x");
    assert!(credentials.find("my-type", "acme", "secret").is_err(), "a folder is no secret");
}
