//! The FRU inventory: boards, chassis and products with their serial numbers.
