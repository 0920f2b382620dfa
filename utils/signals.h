// signals.h -- SIGINT and SIGTERM ask a program to save and leave; a second one ends it at once.
#pragma once
#include "utils/error.h"

void catch_signals();   // from now on the first SIGINT or SIGTERM only sets a flag
bool interrupted();     // cheap: asked between two steps
Exit interrupt_code();  // Interrupted (130) or Terminated (143), Ok where no signal has come
