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

func TestTeamRunsEveryWorkerOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		team := startTeam(t, n)
		counts := make([]int, n)
		for range 1000 {
			team.Do(func(worker int) { counts[worker]++ })
		}
		for w, c := range counts {
			if c != 1000 {
				t.Errorf("worker %d of %d ran %d times, want 1000", w, n, c)
			}
		}
	}
}

// TestTeamBarrier lets every worker read what the others wrote before the barrier: the race detector sees whether it is one.
func TestTeamBarrier(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		team := startTeam(t, n)
		values := make([]int, n)
		team.Do(func(worker int) {
			for round := range 200 {
				values[worker] = round
				team.Barrier()
				for w, v := range values {
					if v != round {
						panic(fmt.Sprintf("worker %d sees %d from %d in round %d", worker, v, w, round))
					}
				}
				team.Barrier()
			}
		})
	}
}

// TestTeamSleepsAndWakes gives the workers time to park between calls, and calls them at every stage of getting there.
func TestTeamSleepsAndWakes(t *testing.T) {
	team := startTeam(t, 3)
	var ran atomic.Int32
	for round := range 60 {
		for range round * 40 {
			runtime.Gosched()
		}
		team.Do(func(int) { ran.Add(1) })
	}
	for team.calls.sleepers.Load() != 2 {
		runtime.Gosched()
	}
	team.Do(func(int) { ran.Add(1) })
	if got := ran.Load(); got != 3*61 {
		t.Errorf("%d runs, want %d", got, 3*61)
	}
}

func TestTeamStartsAgain(t *testing.T) {
	team := NewTeam(2)
	for range 3 {
		team.Start()
		var ran atomic.Int32
		team.Do(func(int) { ran.Add(1) })
		team.Close()
		if ran.Load() != 2 {
			t.Fatalf("%d workers ran", ran.Load())
		}
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
				team.Do(func(int) {
					for range 10 {
						team.Barrier()
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
		task := func(int) { team.Barrier() }
		if got := testing.AllocsPerRun(100, func() { team.Do(task) }); got != 0 {
			t.Errorf("a team of %d allocates %g times for a Do", n, got)
		}
	}
}
