//go:build pod

package podtest

import (
	"context"
	"encoding/json"
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
	pod         string
	memory      uint64 // the most it had in its working set, in bytes
	first, last reading
}

// reading is how much CPU time a container had used at a moment.
type reading struct {
	at   time.Time
	used time.Duration
}

// What ../component requests.
const (
	memoryRequest = 16 << 20
	cpuRequest    = 0.005
)

// settled is how long an agent is measured at least for its use of CPU to be compared: the start takes more.
const settled = 30 * time.Second

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
					Name string
					CPU  struct {
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
				now := reading{c.CPU.Time, time.Duration(c.CPU.UsageCoreNanoSeconds)}
				a := u.agents[p.PodRef.UID]
				if a == nil {
					a = &agent{pod: p.PodRef.Namespace + "/" + p.PodRef.Name, first: now}
					u.agents[p.PodRef.UID] = a
				}
				a.memory, a.last = max(a.memory, c.Memory.WorkingSetBytes), now
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
	for _, a := range u.agents {
		life := a.last.at.Sub(a.first.at)
		cpu := float64(a.last.used-a.first.used) / float64(max(life, 1))
		t.Logf("%s: %.1f MiB, %.1fm CPU over %v", a.pod, float64(a.memory)/(1<<20), cpu*1000, life.Round(time.Second))
		if a.memory > memoryRequest {
			t.Errorf("%s had %.1f MiB of memory, more than it requests", a.pod, float64(a.memory)/(1<<20))
		}
		if life >= settled && cpu > cpuRequest {
			t.Errorf("%s used %.1fm CPU, more than it requests", a.pod, cpu*1000)
		}
	}
}
