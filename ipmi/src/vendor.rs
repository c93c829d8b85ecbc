//! What vendors do differently, as one table.
