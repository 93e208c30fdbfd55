# An invariant that is broken ends the process at once: a wrong state must never be acknowledged or journaled.
# A Python assert would vanish under -O and cannot be raised without the GIL.

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #define simswitch_invariant(condition, text)                                                                   \
        do {                                                                                                       \
            if (__builtin_expect(!(condition), 0)) {                                                               \
                fprintf(stderr, "simswitch: invariant broken: %s (%s:%d)\\n", text, __FILE__, __LINE__);            \
                abort();                                                                                           \
            }                                                                                                      \
        } while (0)
    """
    void invariant "simswitch_invariant"(bint condition, const char *text) noexcept nogil
