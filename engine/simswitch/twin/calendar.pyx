"""When things happen: the twin's calendar queue.

Every quantum of the whole run has a bucket, the head of a list of events in no order. The bucket of the quantum that is
being processed is poured into a binary heap, by instant and then by order of creation, so that ties are settled the same
way on every machine.

    buckets [ · | 7 ▸ 3 | · | 12 | … ]      heap of this quantum [ 3, 7 ]      free list ▸ 5 ▸ 9

Setting an event costs O(1), finding the next one O(log of the events in its quantum); 40 bytes an event, 4 a quantum.
The memory belongs to Loop (loop.pyx); it grows here.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from simswitch.twin.records cimport NONE, Event, World


cdef inline bint earlier(World *w, uint32_t left, uint32_t right) noexcept nogil:
    cdef Event *a = &w.events[left]
    cdef Event *b = &w.events[right]
    return a.at_ns < b.at_ns or (a.at_ns == b.at_ns and a.sequence < b.sequence)


cdef int heap_push(World *w, uint32_t event) except -1 nogil:
    cdef uint32_t *larger
    cdef uint32_t place, parent
    if w.heap_count == w.heap_size:
        larger = <uint32_t *>realloc(w.heap, <size_t>w.heap_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            with gil:
                raise MemoryError()
        w.heap = larger
        w.heap_size *= 2
    place = w.heap_count
    w.heap_count += 1
    while place > 0:
        parent = (place - 1) // 2
        if not earlier(w, event, w.heap[parent]):
            break
        w.heap[place] = w.heap[parent]
        place = parent
    w.heap[place] = event
    return 0


cdef uint32_t heap_pop(World *w) noexcept nogil:
    cdef uint32_t top = w.heap[0]
    cdef uint32_t last, place, child
    w.heap_count -= 1
    if w.heap_count > 0:
        last = w.heap[w.heap_count]
        place = 0
        while True:
            child = 2 * place + 1
            if child >= w.heap_count:
                break
            if child + 1 < w.heap_count and earlier(w, w.heap[child + 1], w.heap[child]):
                child += 1
            if not earlier(w, w.heap[child], last):
                break
            w.heap[place] = w.heap[child]
            place = child
        w.heap[place] = last
    return top


cdef int schedule(World *w, int64_t at_ns, uint16_t kind, uint32_t subject, uint32_t mark) except -1 nogil:
    """An event past the end of the run is not kept: nobody will see it."""
    cdef uint32_t index
    cdef uint64_t quantum
    cdef Event *larger
    cdef Event *event
    if at_ns < w.now_ns:
        at_ns = w.now_ns
    quantum = <uint64_t>(at_ns // w.quantum_ns)
    if quantum >= w.quanta:
        return 0
    if w.events_free != NONE:
        index = w.events_free
        w.events_free = w.events[index].next
    else:
        if w.events_used == w.events_size:
            larger = <Event *>realloc(w.events, <size_t>w.events_size * 2 * sizeof(Event))
            if larger == NULL:
                with gil:
                    raise MemoryError()
            w.events = larger
            w.events_size *= 2
        index = w.events_used
        w.events_used += 1
    event = &w.events[index]
    event.at_ns = at_ns
    event.sequence = w.event_sequence
    w.event_sequence += 1
    event.subject = subject
    event.mark = mark
    event.kind = kind
    if quantum < w.quantum:
        # The quantum that is being processed now.
        heap_push(w, index)
    else:
        event.next = w.buckets[quantum]
        w.buckets[quantum] = index
    return 0
