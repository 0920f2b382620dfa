// signals.h -- SIGINT, SIGTERM and SIGHUP (the terminal is closed; not under nohup) ask a program to save and leave; a second
// one ends it at once. A mapped file that another program has cut short ends it with a line that says so.
#pragma once
#include "utils/error.h"

void catch_signals();   // from now on the first of these only sets a flag, and SIGBUS has its words
bool interrupted();     // cheap: asked between two steps
bool take_interrupt();  // true, once, where SIGINT has come: a chat ends an answer and goes on
// From now on writing to whom nobody listens any more (`| head`) fails, and ends nothing: for runs of days.
void survive_broken_pipes();
// Throws Error(interrupt_code(), message) where a signal has come: for work that is of no use half done.
void throw_if_interrupted(const char* message);
Exit interrupt_code();  // Interrupted (130) or Terminated (143), Ok where no signal has come
