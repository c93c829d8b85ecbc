//! What the appliance remembers.
