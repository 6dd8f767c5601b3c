package main

// unknownMemory is offered where the system does not say what it has: enough for small models, too little to do harm.
const unknownMemory = 2 << 30

// offeredMemory is what this machine has to offer in bytes: its available memory, or the control group's limit if that
// is smaller. Shards that share a machine divide it.
func offeredMemory() int64 {
	if n := availableMemory(); n > 0 {
		return n
	}
	return unknownMemory
}
