/* Define all loops, for vectors of BYTES, under the name LOOPS. */

#include "arithmetic.h"
#include "experience.h"
#include "images.h"
#include "loops.h"
#include "mlp.h"
#include "updates.h"

const struct Loops LOOPS = {
    KIND, WIDTH, PANEL, product, pack, pack_transposed, dots, activate, activate_backward, transpose, copy, scale_bytes,
    operate, operate_backward, adam, are_finite, gather,
};
