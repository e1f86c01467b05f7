//! The file that a drawing goes into: SVG, or one HTML page that needs no other file.

use std::fs;
use std::path::PathBuf;

use super::{draw, Run};
use crate::error::Error;

/// The form of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Svg,
    Html,
}

/// A file for a drawing.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    path: PathBuf,
    form: Form,
}

impl Drawing {
    /// Reads the argument of `--draw`. The end of the name tells the form.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let path = PathBuf::from(name);
        let form = match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Form::Svg,
            Some("html") => Form::Html,
            _ => return Err("expected a name that ends in .svg or .html".to_owned()),
        };
        Ok(Self { path, form })
    }

    /// Writes the drawing. A file that exists is written anew.
    pub(crate) fn write(&self, run: &Run<'_>) -> Result<(), Error> {
        let text = match self.form {
            Form::Svg => draw(run),
            Form::Html => page(run),
        };
        let path = &self.path;
        fs::write(path, text).map_err(|source| Error::File { path: path.clone(), source })
    }
}

/// Draws a run as an HTML page: the picture, and a list of all calls. The page loads no other file.
#[must_use]
pub fn page(run: &Run<'_>) -> String {
    let calls: Vec<_> = run.calls.iter().map(|call| escaped(&call.to_string())).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{}</title>\n\
         <style>:root{{color-scheme:light dark}}body{{margin:1em;font-family:system-ui,sans-serif}}\
         svg{{display:block}}pre{{overflow:auto}}</style>\n{}<details><summary>{} calls</summary>\
         <pre>\n{}\n</pre></details>\n</html>\n",
        escaped(run.message),
        draw(run),
        run.calls.len(),
        calls.join("\n"),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_the_name_tells_the_form() {
        assert_eq!(Drawing::parse("a/run.svg").unwrap().form, Form::Svg);
        assert_eq!(Drawing::parse("run.html").unwrap().form, Form::Html);
        for name in ["run", "run.png", "svg", ".svg"] {
            assert!(Drawing::parse(name).unwrap_err().contains(".svg or .html"), "{name}");
        }
    }
}
