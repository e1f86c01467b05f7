//! Folders that harm nobody who reads them.
