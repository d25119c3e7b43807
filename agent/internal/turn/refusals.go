package turn

import (
	"slices"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// maxRefusals bounds how many refused values are remembered for a file.
const maxRefusals = 16

// refusals are values that were refused and not accepted since: none of them may be published without proof. They are
// copies of our own.
type refusals []secret.Value

func (r refusals) has(v secret.Value) bool { return slices.ContainsFunc(r, v.Equal) }

// add remembers v, and forgets the one that was refused longest ago if there are too many.
func (r *refusals) add(v secret.Value) {
	r.remove(v)
	if len(*r) == maxRefusals {
		r.remove((*r)[0])
	}
	*r = append(*r, secret.New(v.Reveal()))
}

func (r *refusals) remove(v secret.Value) {
	if i := slices.IndexFunc(*r, v.Equal); i >= 0 {
		(*r)[i].Clear()
		*r = slices.Delete(*r, i, i+1)
	}
}
