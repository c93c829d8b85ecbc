//! One RMCP+ session over a socket.
