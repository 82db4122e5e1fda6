//! Where the ONNX Runtime library may be: the configured path, `ORT_DYLIB_PATH`, the system, Python's packages.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Environment variable that names the library, or a folder that holds it.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Reads one environment variable; the process's own outside tests.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Libraries to try.
#[derive(Debug, PartialEq)]
pub(crate) enum Candidates {
    /// The user named this one: it is used or its failure is an error.
    Named { path: PathBuf, by: &'static str },
    /// Found in the usual places, best first.
    Found(Vec<PathBuf>),
}

/// Lists the libraries to try, `configured` first.
pub(crate) fn candidates(configured: Option<&Path>, variables: Variables) -> Candidates {
    let named = configured
        .map(|path| (path.to_path_buf(), "the configuration"))
        .or_else(|| variables(LIBRARY_VARIABLE).filter(|v| !v.is_empty()).map(|v| (v.into(), LIBRARY_VARIABLE)));
    if let Some((path, by)) = named {
        let path = libraries_in(&path).into_iter().next().unwrap_or(path);
        return Candidates::Named { path, by };
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in system_folders().into_iter().chain(python_folders(variables)) {
        for library in libraries_in(&folder) {
            if !found.contains(&library) {
                found.push(library);
            }
        }
    }
    Candidates::Found(found)
}

/// Folders a package manager or an archive's instructions install to, and the executable's own.
fn system_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["/usr/lib".into(), format!("/usr/lib/{ARCH}-linux-gnu"), "/usr/local/lib".into()]
        .into_iter()
        .chain(["/usr/lib64", "/opt/onnxruntime/lib", "/opt/homebrew/lib"].map(String::from))
        .map(PathBuf::from)
        .collect();
    folders.extend(std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)));
    folders
}

/// `onnxruntime/capi` of the active virtual environment, of `python3` on the path, of the user and of the system.
fn python_folders(variables: Variables) -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> = variables("VIRTUAL_ENV").map(PathBuf::from).into_iter().collect();
    if let Some(path) = variables("PATH") {
        let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file());
        // A virtual environment's python3 is a link: its packages are beside the link, not beside the target.
        let places = python.iter().cloned().chain(python.as_ref().and_then(|p| p.canonicalize().ok()));
        prefixes.extend(places.filter_map(|p| Some(p.parent()?.parent()?.to_path_buf())));
    }
    prefixes.extend(variables("HOME").map(|home| PathBuf::from(home).join(".local")));
    prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
    prefixes.iter().flat_map(|prefix| package_folders(&prefix.join("lib"))).collect()
}

/// `lib/python3*/{site,dist}-packages/onnxruntime/capi`, newest Python first.
fn package_folders(lib: &Path) -> Vec<PathBuf> {
    let mut pythons: Vec<PathBuf> = entries(lib).filter(|p| file_name(p).starts_with("python3")).collect();
    pythons.sort_by_key(|p| std::cmp::Reverse(version(&file_name(p)["python".len()..])));
    pythons
        .iter()
        .flat_map(|python| ["site-packages", "dist-packages"].map(|kind| python.join(kind).join("onnxruntime/capi")))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// ONNX Runtime's libraries in `folder`, newest first; providers' libraries, which cannot be loaded alone, are not
/// among them.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut libraries: Vec<PathBuf> = entries(folder).filter(|p| is_library(&file_name(p)) && p.is_file()).collect();
    libraries.sort_by_key(|p| std::cmp::Reverse(library_version(p).map(|v| version(&v)).unwrap_or_default()));
    libraries
}

fn is_library(name: &str) -> bool {
    let stem = format!("{DLL_PREFIX}onnxruntime");
    name.strip_prefix(&stem).is_some_and(|rest| {
        rest.starts_with(DLL_SUFFIX) || (rest.starts_with('.') && rest.ends_with(DLL_SUFFIX) && !DLL_SUFFIX.is_empty())
    })
}

/// The version in the library's file name, or in that of the file it links to: `1.31.1`.
pub(crate) fn library_version(path: &Path) -> Option<String> {
    let in_name = |path: &Path| {
        let name = file_name(path);
        let start = name.find(|c: char| c.is_ascii_digit())?;
        let digits: String = name[start..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let digits = digits.trim_end_matches('.');
        digits.contains('.').then(|| digits.to_string())
    };
    in_name(path).or_else(|| in_name(&path.canonicalize().ok()?))
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn touch(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        path.to_path_buf()
    }

    fn library(folder: &Path, version: &str) -> PathBuf {
        touch(&folder.join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}.{version}")))
    }

    #[test]
    fn the_configured_path_comes_before_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let (configured, variable) =
            (library(&dir.path().join("a"), "1.20.0"), library(&dir.path().join("b"), "1.31.1"));
        let env = |name: &str| (name == LIBRARY_VARIABLE).then(|| variable.clone().into_os_string());
        let expected = Candidates::Named { path: configured.clone(), by: "the configuration" };
        assert_eq!(candidates(Some(&configured), &env), expected);
        assert_eq!(candidates(None, &env), Candidates::Named { path: variable.clone(), by: LIBRARY_VARIABLE });
    }

    #[test]
    fn a_folder_stands_for_the_newest_library_in_it() {
        let dir = tempfile::tempdir().unwrap();
        library(dir.path(), "1.9.1");
        let newest = library(dir.path(), "1.31.1");
        touch(&dir.path().join(format!("{DLL_PREFIX}onnxruntime_providers_shared{DLL_SUFFIX}")));
        let expected = Candidates::Named { path: newest, by: "the configuration" };
        assert_eq!(candidates(Some(dir.path()), &|_| None), expected);
    }

    #[test]
    fn the_virtual_environment_comes_before_python_on_the_path_and_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let capi = |prefix: &str, python: &str| {
            dir.path().join(prefix).join("lib").join(python).join("site-packages/onnxruntime/capi")
        };
        let venv = library(&capi("venv", "python3.9"), "1.20.0");
        let on_path = library(&capi("system", "python3.12"), "1.31.1");
        touch(&dir.path().join("system/bin/python3"));
        let user = library(&capi("home/.local", "python3.12"), "1.25.0");
        let older_python = library(&capi("home/.local", "python3.9"), "1.26.0");
        let env = |name: &str| match name {
            "VIRTUAL_ENV" => Some(dir.path().join("venv").into_os_string()),
            "PATH" => Some(dir.path().join("system/bin").into_os_string()),
            "HOME" => Some(dir.path().join("home").into_os_string()),
            _ => None,
        };
        let Candidates::Found(found) = candidates(None, &env) else { unreachable!("nothing is named") };
        let ours: Vec<_> = found.into_iter().filter(|p| p.starts_with(dir.path())).collect();
        assert_eq!(ours, [venv, on_path, user, older_python]);
    }

    #[test]
    fn versions_are_read_from_file_names() {
        assert_eq!(library_version(Path::new("libonnxruntime.so.1.31.1")).as_deref(), Some("1.31.1"));
        assert_eq!(library_version(Path::new("libonnxruntime.1.20.0.dylib")).as_deref(), Some("1.20.0"));
        assert_eq!(library_version(Path::new("libonnxruntime.so")), None);
    }
}
