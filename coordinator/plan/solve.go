package plan

// Options are what an operator may ask of a plan.
type Options struct {
	Leader string // the coordinator that plans; part of the plan's ID
	Stages int    // exactly so many stages, each with at least a layer where memory allows; 0: as many as help
}
