//! Cases and laws of the plan.
