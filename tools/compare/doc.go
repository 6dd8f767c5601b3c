// Command compare measures Daisy beside llama.cpp, in turn, on this machine, and writes the tables of docs/benchmarks.md:
//
//	go run ./tools/compare --llama DIR [--english FILE --chinese FILE] [--only smollm2,7b] [--rounds 5] [--threads 1,2] > table.md
//
// It owns the plan of a comparison: which models, which tests, which figures to reach. How fast something is, each program says
// of itself: daisy bench and llama-bench, daisy perplexity and llama-perplexity. It builds Daisy from the module it is run in, and
// keeps the models that it makes.
//
// A figure is the median of several rounds. In a round one program runs right after the other, each in a process of its own, and they
// take turns in beginning, so that what the machine does meanwhile meets both. A ratio is the median of the rounds' ratios.
//
// Tables go to standard output row by row, progress to standard error. A measurement that fails is a row that says so, and the status
// at the end. Each command has a limit of time. Whatever ends compare, ends what it started.
package main
