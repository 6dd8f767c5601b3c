// Package weights brings to a shard the bytes of its block when the model file is on other machines.
//
// A model file is cut into chunks. Their hashes are a List, whose own hash, the root, travels in the Load of a shard that has
// said that it has no such file. An Origin is a coordinator's whole file: it makes the list, once, and gives chunks. A Cache is
// a shard's: it opens model files that are not there yet, fetches what a block needs of them, from the caches of other shards on
// this machine, from other shards and from the coordinator at the same time, and gives what it has to others. cmd/daisy wires
// both to services/rpc, of which each is the local twin of a remote pass.Weights.
//
// What a Cache has of a file lies in a slot, a folder of its own below the cache folder:
//
//	chunks/<SHA-256 of the file>/<number>/   lock    locked while a process has the slot
//	                                         owner   the name of the shard that had it last, and takes it again
//	                                         list    the list
//	                                         states  a byte for each chunk: absent, written, safe
//	                                         model.gguf, as large as the file, with holes where chunks are absent
//
// Invariants. No byte is used, or given to others, that was not held against the list; the list is what the root in the Load
// names. A chunk counts as written only after its bytes are, and as safe only after they have reached the disk: what a process that
// was killed has written is there for the next, and what a machine that lost power may not have written is checked before
// it is used. One process at a time writes to a slot: shards that share a cache folder have a slot each. Chunks that no
// block needs any more become holes where the system can make them.
//
// Refused are chunks that do not fit their hash: the source that gave one is named in the log, and asked no more; lists that do
// not fit their root; files beyond pass.MaxChunks.
package weights
