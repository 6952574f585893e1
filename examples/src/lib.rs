//! How to embed the OpenELB libraries: see the programs beside this directory.
