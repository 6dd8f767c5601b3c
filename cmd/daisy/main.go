// Command daisy serves a language model from a chain of ordinary machines.
package main

func main() {}
