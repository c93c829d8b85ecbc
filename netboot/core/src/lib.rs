//! The appliance's decisions, as functions over values.
