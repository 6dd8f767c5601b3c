package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startTeam(t testing.TB, n int) *Team {
	team := NewTeam(n)
	team.Start()
	t.Cleanup(team.Close)
	return team
}

// count is a step that counts how often each unit is done.
func count(team *Team, worker int, least int, units []atomic.Int32) {
	team.Share(worker, len(units), least, func(from, to int) {
		for i := from; i < to; i++ {
			units[i].Add(1)
		}
	})
}

// TestShareDoesEveryUnitOnce has steps of all sizes follow each other, many of them too small to share.
func TestShareDoesEveryUnitOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		team := startTeam(t, n)
		var steps [][]atomic.Int32
		for _, units := range []int{0, 1, 2, 3, 7, 16, 100, 1000, 1, 1, 70000} {
			steps = append(steps, make([]atomic.Int32, units))
		}
		const rounds = 20
		for round := range rounds {
			team.Do(func(worker int) {
				for _, units := range steps {
					count(team, worker, 1+round%3, units)
				}
			})
		}
		for _, units := range steps {
			for i := range units {
				if got := units[i].Load(); got != rounds {
					t.Fatalf("team of %d: unit %d of %d was done %d times, want %d", n, i, len(units), got, rounds)
				}
			}
		}
	}
}

// TestStepsFollowEachOther lets every step read what the step before wrote: the race detector sees whether it was done.
func TestStepsFollowEachOther(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		team := startTeam(t, n)
		values := make([]int, 3*n)
		for call := range 20 {
			team.Do(func(worker int) {
				for step := range 30 {
					least := 1 + step%5*n // a step of one piece now and then
					team.Share(worker, len(values), least, func(from, to int) {
						for i := from; i < to; i++ {
							values[i]++
						}
					})
					team.Share(worker, len(values), 1, func(from, to int) {
						for i := range values {
							if want := call*30 + step + 1; values[i] != want {
								panic(fmt.Sprintf("value %d is %d after step %d of call %d, want %d", i, values[i], step, call, want))
							}
						}
					})
				}
			})
		}
	}
}

// TestStepsOfFewPieces has steps in which most workers get none: they may all be done while the one who opened them is still
// telling the others, and must not be followed by another step before it has.
func TestStepsOfFewPieces(t *testing.T) {
	const n, calls, steps = 8, 3000, 30
	team := startTeam(t, n)
	var done [2]atomic.Int32
	for call := range calls {
		team.Do(func(worker int) {
			for range steps {
				team.Share(worker, len(done), 1, func(from, to int) {
					for i := from; i < to; i++ {
						done[i].Add(1)
					}
				})
			}
		})
		for i := range done {
			if got, want := int(done[i].Load()), (call+1)*steps; got != want {
				t.Fatalf("unit %d was done %d times after call %d, want %d", i, got, call, want)
			}
		}
	}
}

// TestNobodyWaitsForWhoHoldsNothing keeps all workers but the caller away from their task: that one does everything, and
// they find nothing left to do, in this task or a later one.
func TestNobodyWaitsForWhoHoldsNothing(t *testing.T) {
	team := startTeam(t, 3)
	release := make(chan struct{})
	var entered, left sync.WaitGroup
	entered.Add(2)
	left.Add(2)
	units := make([]atomic.Int32, 90)
	team.Do(func(worker int) {
		if worker != 0 {
			defer left.Done()
			entered.Done()
			<-release
		}
		count(team, worker, 1, units) // which calls them
		if worker == 0 {
			entered.Wait()
		}
		for range 5 {
			count(team, worker, 1, units)
			count(team, worker, len(units), units)
		}
	})
	team.Do(func(worker int) { count(team, worker, 1, units) })
	close(release)
	left.Wait()
	for i := range units {
		if got := units[i].Load(); got != 12 {
			t.Fatalf("unit %d was done %d times, want 12", i, got)
		}
	}
}

// TestTeamSleepsAndWakes gives the workers time to park between calls, and calls them at every stage of getting there.
func TestTeamSleepsAndWakes(t *testing.T) {
	team := startTeam(t, 3)
	units := make([]atomic.Int32, 30)
	var met atomic.Int32
	task := func(worker int) { count(team, worker, 1, units) }
	meet := func(worker int) { // a step that needs all workers
		team.Share(worker, 3, 1, func(int, int) {
			for met.Add(1); met.Load() < 3; {
				runtime.Gosched()
			}
		})
	}
	for round := range 60 {
		for range round * 40 {
			runtime.Gosched()
		}
		team.Do(task)
	}
	for !team.workers[1].asleep.Load() || !team.workers[2].asleep.Load() {
		runtime.Gosched()
	}
	team.Do(meet)
	for i := range units {
		if got := units[i].Load(); got != 60 {
			t.Errorf("unit %d was done %d times, want 60", i, got)
		}
	}
}

func TestTeamStartsAgain(t *testing.T) {
	team := NewTeam(2)
	for range 3 {
		team.Start()
		var ran atomic.Int32
		team.Do(func(worker int) {
			team.Share(worker, 2, 1, func(int, int) { // needs both workers
				for ran.Add(1); ran.Load() < 2; {
					runtime.Gosched()
				}
			})
		})
		team.Close()
	}
	team.Close() // idle already
}

// TestTeamsAmongBusyGoroutines has more of everything than there are cores, and a garbage collector at work: everybody
// has to come through.
func TestTeamsAmongBusyGoroutines(t *testing.T) {
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		busy.Go(func() {
			for n := 0; !stop.Load(); n++ {
				_ = make([]byte, n%1000)
			}
		})
	}
	var teams sync.WaitGroup
	for range 2 {
		teams.Go(func() {
			team := NewTeam(3)
			team.Start()
			defer team.Close()
			for range 20 {
				team.Do(func(worker int) {
					for range 10 {
						team.Share(worker, 9, 1, func(int, int) {})
					}
				})
			}
		})
	}
	teams.Wait()
	stop.Store(true)
	busy.Wait()
}

func TestTeamAllocatesNothing(t *testing.T) {
	for _, n := range []int{1, 2} {
		team := startTeam(t, n)
		task := func(worker int) { team.Share(worker, 2, 1, func(int, int) {}) }
		if got := testing.AllocsPerRun(100, func() { team.Do(task) }); got != 0 {
			t.Errorf("a team of %d allocates %g times for a Do", n, got)
		}
	}
}
