/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/distribution.h"

static double elements(const mest_layer_density *l) { return (double)mest_shape_span(l->shape, 0, l->shape->rank); }

static double raw(const mest_layer_density *l, bool kernel)
{
    double sum = 0, product = 1;
    for (int i = 0; i < (kernel ? l->shape->rank : 2); i++) {
        sum += (double)l->shape->dim[i];
        product *= (double)l->shape->dim[i];
    }
    return product > 0 ? sum / product : 0;
}

mest_status mest_distribute(mest_layer_density *layers, int n, double sparsity, bool kernel, double *eps_out, mest_error *err)
{
    double all = 0, given = 0;
    for (int i = 0; i < n; i++) {
        layers[i].density = layers[i].fixed;
        all += elements(&layers[i]);
        given += layers[i].fixed >= 0 ? layers[i].fixed * elements(&layers[i]) : 0;
    }
    for (;;) {
        double free = 0, eps, worst = 1;
        for (int i = 0; i < n; i++)
            if (layers[i].density < 0)
                free += raw(&layers[i], kernel) * elements(&layers[i]);
        eps = free > 0 ? ((1 - sparsity) * all - given) / free : 0;
        MEST_CHECK(free == 0 || eps > 0, err, MEST_E_ARGUMENT,
                   "distribution: at sparsity %g all weights together keep %.0f of %.0f, but layers whose density is given hold %.0f", sparsity,
                   (1 - sparsity) * all, all, given);
        for (int i = 0; i < n; i++) { /* how far beyond its limit the worst layer would be */
            const double over = layers[i].density < 0 ? eps * raw(&layers[i], kernel) / layers[i].most : 0;
            worst = over > worst ? over : worst;
        }
        if (eps_out)
            *eps_out = eps;
        if (worst <= 1) {
            for (int i = 0; i < n; i++)
                if (layers[i].density < 0)
                    layers[i].density = eps * raw(&layers[i], kernel);
            return MEST_OK;
        }
        for (int i = 0; i < n; i++)
            if (layers[i].density < 0 && eps * raw(&layers[i], kernel) / layers[i].most >= worst) {
                layers[i].density = layers[i].most;
                given += layers[i].most * elements(&layers[i]);
            }
    }
}
