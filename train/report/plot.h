// plot.h -- `train_tracerl plot RUN...`: one report of several runs, made from their folders.
#pragma once

int plot_main(int argc, char** argv);  // argv[0] is the program's name with the command; the exit code
