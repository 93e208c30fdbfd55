# One run of commands while it is applied: where its columns stand, and where its outcomes go (commands.py has the layout).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


ctypedef struct Run:
    uint32_t kind
    uint32_t count
    uint32_t actor
    uint32_t server                     # NONE_SHORT: none
    uint64_t argument
    uint64_t now_ms
    const uint8_t *columns
    uint8_t *outcomes


# The columns of a granted lease, as ALLOCATE, ADOPT and REPORT_ATTACH_FAILURE give it.
ctypedef struct Grant:
    uint64_t *epoch
    uint64_t *expires_ms
    uint64_t *iccid
    uint32_t *sim
    uint32_t *retry_after_ms
    uint32_t *slow_kbps
    uint16_t *bank
    uint16_t *slot
    uint8_t *status


cdef inline Grant grant_columns(const Run *run) noexcept nogil:
    cdef Grant grant
    cdef uint64_t count = run.count
    grant.epoch = <uint64_t *> run.outcomes
    grant.expires_ms = grant.epoch + count
    grant.iccid = grant.expires_ms + count
    grant.sim = <uint32_t *> (grant.iccid + count)
    grant.retry_after_ms = grant.sim + count
    grant.slow_kbps = grant.retry_after_ms + count
    grant.bank = <uint16_t *> (grant.slow_kbps + count)
    grant.slot = grant.bank + count
    grant.status = <uint8_t *> (grant.slot + count)
    return grant
