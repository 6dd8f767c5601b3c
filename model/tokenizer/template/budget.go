package template

import (
	"fmt"
	"time"

	"github.com/ardanlabs/jinja"
)

// What one rendering may use. A long conversation with tools takes some thousands of steps and a megabyte.
const (
	maxSteps  = 1 << 20  // turns of loops and calls of macros
	maxCalls  = 64       // macros within each other
	maxWork   = 1 << 26  // values looked at by assignments, and items made by functions
	maxOutput = 32 << 20 // bytes
	maxValue  = 16 << 20 // bytes of one value
	maxItems  = 1 << 20  // of one list
	maxDepth  = 100      // lists and dictionaries within each other
	maxNested = 1 << 20  // depths of all that was put into lists and dictionaries
	maxTime   = 10 * time.Second
	maxProbe  = time.Second // for the renderings that Compile makes
)

// budget is what one rendering has used.
type budget struct {
	steps, calls, work, output, nested int
	deadline                           time.Time
}

func newBudget(patience time.Duration) *budget { return &budget{deadline: time.Now().Add(patience)} }

// step is taken at every turn of a loop and call of a macro: only there can a template go on for ever.
func (b *budget) step() error {
	b.steps++
	if b.steps > maxSteps {
		return fmt.Errorf("the template takes more than %d steps", maxSteps)
	}
	return nil
}

// time is looked at whenever the template calls a function.
func (b *budget) time() error {
	if time.Now().After(b.deadline) {
		return fmt.Errorf("the template takes too long")
	}
	return nil
}

// enter is a step into a macro, and leave the way out.
func (b *budget) enter() error {
	b.calls++
	if b.calls > maxCalls {
		return fmt.Errorf("more than %d macros call each other", maxCalls)
	}
	return b.step()
}

func (b *budget) leave() { b.calls-- }

// write counts bytes of output.
func (b *budget) write(bytes int) error {
	b.output += bytes
	if b.output > maxOutput {
		return fmt.Errorf("the template writes more than %d bytes", maxOutput)
	}
	return nil
}

// do counts items that a function makes or looks at.
func (b *budget) do(items int) error {
	if items > maxItems || items < 0 {
		return fmt.Errorf("the template makes a list of more than %d items", maxItems)
	}
	b.work += items
	if b.work > maxWork {
		return fmt.Errorf("the template handles more than %d values", maxWork)
	}
	return nil
}

// fits refuses values that are about to become too large.
func fits(bytes int) error {
	if bytes > maxValue || bytes < 0 {
		return fmt.Errorf("the template makes a value of more than %d bytes", maxValue)
	}
	return nil
}

// measure looks all over a value before it is kept: how deep it is, and that it is not too large. Finding one of the
// containers inside means that the value would come to contain itself, which the library would follow for ever.
func (b *budget) measure(v jinja.Value, containers ...any) (depth int, err error) {
	bytes := 0
	var look func(v jinja.Value, level int) error
	look = func(v jinja.Value, level int) error {
		if err := b.do(1); err != nil {
			return err
		}
		depth = max(depth, level)
		var inside any
		switch {
		case v.IsString():
			bytes += len(v.AsString())
			return fits(bytes)
		case v.IsList():
			inside = v.AsList()
		case v.IsDict():
			inside = v.AsDict()
		default:
			return nil
		}
		for _, c := range containers {
			if c == inside {
				return fmt.Errorf("the template puts a value into itself")
			}
		}
		if level == maxDepth {
			return fmt.Errorf("the template nests values more than %d levels deep", maxDepth)
		}
		if v.IsList() {
			for _, item := range v.AsList().Items {
				if err := look(item, level+1); err != nil {
					return err
				}
			}
			return nil
		}
		for _, key := range v.AsDict().Keys {
			bytes += len(key)
			if err := look(v.AsDict().Data[key], level+1); err != nil {
				return err
			}
		}
		return nil
	}
	return depth, look(v, 0)
}

// put is measure for a value that goes into a container.
func (b *budget) put(v jinja.Value, container any) error {
	depth, err := b.measure(v, container)
	if err != nil {
		return err
	}
	// Each stays below the maximum, but filling what lies innermost again and again would add them up.
	if b.nested += depth; b.nested > maxNested {
		return fmt.Errorf("the template nests values more than %d times", maxNested)
	}
	return nil
}
