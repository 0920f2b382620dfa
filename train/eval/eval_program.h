// eval_program.h -- from the options of `eval` to its tables: responses of models, likelihoods of given
// answers, saved responses rewarded again.
#pragma once
#include "train/eval/eval_plan.h"

// Ok, or the code of the signal that stopped it: what was done by then has been printed.
Exit run_eval(EvalPlan& plan, const Common& common);
