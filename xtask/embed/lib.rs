//! Empty. The manifest beside this file only names versions.
