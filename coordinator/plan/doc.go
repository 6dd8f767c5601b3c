// Package plan decides which shard holds which layers: roster and model shape in, Plan out, nothing else.
//
// The coordinator calls Solve whenever its roster changes and acts on the Plan it gets; cmd calls it to show a plan
// without starting anything. Solve is a pure function: it keeps nothing, starts nothing, asks no clock, and gives the
// same Plan for the same members in any order.
//
// The invariant of every Plan: in each pipeline the blocks lie one behind the other, hold every layer exactly once, and
// no shard is asked for more memory than it offers. Solve refuses to return anything less: it says how much memory is
// missing instead.
package plan
