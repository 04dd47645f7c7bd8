// All operators.
#pragma once

#include "engine/ops/batch_norm.h"
#include "engine/ops/convolution.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/feature_losses.h"
#include "engine/ops/frozen.h"
#include "engine/ops/linear.h"
#include "engine/ops/logit_losses.h"
#include "engine/ops/pool.h"
#include "engine/ops/reduce.h"
#include "engine/ops/relation_losses.h"
#include "engine/ops/rows.h"
#include "engine/ops/shape.h"
