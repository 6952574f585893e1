//! A cursor over bytes that never reads past their end.
