//go:build pod

package podtest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// usage is what every agent of the test has used, as the kubelets measure it.
type usage struct {
	*cluster
	cancel context.CancelFunc
	work   sync.WaitGroup

	agents map[string]*agent // by pod
}

type agent struct {
	pod    string
	memory uint64 // the most it had in its working set, in bytes
	cpu    float64
	life   time.Duration
}

const (
	memoryRequest = 16 << 20
	memoryLimit   = 32 << 20
	cpuRequest    = 0.005
)

// watchAgents measures until check is called.
func (w *world) watchAgents(t *testing.T) *usage {
	u := &usage{cluster: w.cluster, agents: map[string]*agent{}}
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel = cancel
	u.work.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			u.measure(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { cancel(); u.work.Wait() })
	return u
}

// measure asks each node's kubelet. One that doesn't answer is asked again at the next time.
func (u *usage) measure(ctx context.Context) {
	names, err := u.try(ctx, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return
	}
	for _, node := range strings.Fields(names) {
		out, err := u.try(ctx, "get", "--raw=/api/v1/nodes/"+node+"/proxy/stats/summary")
		if err != nil {
			continue
		}
		var summary struct {
			Pods []struct {
				PodRef     struct{ Name, Namespace, UID string }
				Containers []struct {
					Name      string
					StartTime time.Time
					CPU       struct {
						Time                 time.Time
						UsageCoreNanoSeconds uint64
					}
					Memory struct{ WorkingSetBytes uint64 }
				}
			}
		}
		if json.Unmarshal([]byte(out), &summary) != nil {
			continue
		}
		for _, p := range summary.Pods {
			for _, c := range p.Containers {
				if c.Name != "keyturn-agent" || !strings.HasPrefix(p.PodRef.Namespace, "keyturn-") {
					continue
				}
				a := u.agents[p.PodRef.UID]
				if a == nil {
					a = &agent{pod: p.PodRef.Namespace + "/" + p.PodRef.Name}
					u.agents[p.PodRef.UID] = a
				}
				a.memory = max(a.memory, c.Memory.WorkingSetBytes)
				a.life = c.CPU.Time.Sub(c.StartTime)
				a.cpu = float64(c.CPU.UsageCoreNanoSeconds) / float64(a.life)
			}
		}
	}
}

// check ends the measuring, and compares.
func (u *usage) check(t *testing.T) {
	u.cancel()
	u.work.Wait()
	if len(u.agents) == 0 {
		t.Fatal("no agent was measured")
	}
	var memory []uint64
	for _, a := range u.agents {
		memory = append(memory, a.memory)
		t.Logf("%s: %.1f MiB, %.1fm CPU over %v", a.pod, float64(a.memory)/(1<<20), a.cpu*1000, a.life.Round(time.Second))
	}
	slices.Sort(memory)
	if most := memory[len(memory)-1]; most > memoryRequest {
		t.Errorf("an agent had %.1f MiB of memory, more than it requests", float64(most)/(1<<20))
	}
}
