//! The memory backends keep the promises of their traits.

mod revocations {
    infrachat_identity::revocations_contract!(async {
        infrachat_identity::MemoryRevocations::new()
    });
}

mod limits {
    infrachat_identity::rate_limiter_contract!(async { infrachat_identity::MemoryLimiter::new() });
}
