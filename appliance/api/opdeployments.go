package api

import (
	"cmp"
	"context"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

type DeploymentPath struct {
	ID string `path:"id" maxLength:"64"`
}

// MatchedDeployment is the path of a deployment that is changed.
type MatchedDeployment struct {
	DeploymentPath
	Match
}

// deployments returns the deployments with the number of their jobs in each state, oldest first.
func (o *Operators) deployments() []Deployment {
	count := map[string]map[job.State]int{}
	for _, j := range o.fleet.Jobs() {
		if j.Deployment == "" {
			continue
		}
		if count[j.Deployment] == nil {
			count[j.Deployment] = map[job.State]int{}
		}
		count[j.Deployment][j.State]++
	}
	list := []Deployment{}
	for _, d := range o.fleet.Deployments() {
		list = append(list, Deployment{d, Duration(d.SeedFor), count[d.ID]})
	}
	return list
}

func (o *Operators) deploymentOf(id string) (*versioned[Deployment], error) {
	list := o.deployments()
	i := slices.IndexFunc(list, func(d Deployment) bool { return d.ID == id })
	if i < 0 {
		return nil, &fleet.Refusal{Code: fleet.CodeDeploymentUnknown, Detail: "no deployment has the ID " + id + "; `seedbed deployment ls` lists them"}
	}
	return &versioned[Deployment]{etag(list[i].Version), list[i]}, nil
}

// addSteering adds what is done with all jobs of a deployment.
func addSteering[O any](o *Operators, verb, id, summary string, fn func(ctx context.Context, deployment string) (O, error), more ...func(*huma.Operation)) {
	add(o, "POST", "/deployments/{id}/"+verb, id, summary, func(ctx context.Context, in *MatchedDeployment) (*answer[O], error) {
		ctx, err := in.expecting(ctx, func() (int64, error) {
			d, err := o.deploymentOf(in.ID)
			if err != nil {
				return 0, err
			}
			return d.Body.Version, nil
		})
		if err != nil {
			return nil, err
		}
		return body(fn(ctx, in.ID))
	}, append(more, matched)...)
}

func (o *Operators) addDeployments() {
	f := o.fleet
	add(o, "GET", "/deployments", "listDeployments", "List the deployments", func(_ context.Context, in *Cut) (*paged[Deployment], error) {
		return page(o.deployments(), *in, func(d Deployment) string { return datedKey(d.Created, d.ID) })
	})
	add(o, "POST", "/deployments", "deploy", "Put an image on machines", func(ctx context.Context, in *struct{ Body Order }) (*versioned[Deployment], error) {
		d, err := f.Deploy(ctx, in.Body.plain())
		if err != nil {
			return nil, err
		}
		return o.deploymentOf(d.ID)
	}, made)
	add(o, "POST", "/deployments/plan", "planDeployment", "Say what a deployment would do, and change nothing", func(ctx context.Context, in *struct{ Body Order }) (*answer[*fleet.Plan], error) {
		return body(f.Plan(ctx, in.Body.plain()))
	})
	add(o, "GET", "/deployments/{id}", "getDeployment", "Show a deployment", func(_ context.Context, in *DeploymentPath) (*versioned[Deployment], error) {
		return o.deploymentOf(in.ID)
	})
	for verb, summary := range map[fleet.Verb]string{
		fleet.CancelAll: "End all jobs of a deployment that have not ended", fleet.PauseAll: "Hold all jobs of a deployment", fleet.ResumeAll: "Let all jobs of a deployment go on",
	} {
		addSteering(o, string(verb), string(verb)+"Deployment", summary, func(ctx context.Context, id string) (Count, error) {
			n, err := f.OperateDeployment(ctx, id, verb)
			return Count{n}, err
		})
	}
	addSteering(o, "retry-failed", "retryFailed", "Have the jobs of a deployment that failed done again", func(ctx context.Context, id string) (Count, error) {
		n, err := f.RetryFailed(ctx, id)
		return Count{n}, err
	})
	addSteering(o, "rollback", "rollback", "Put on its machines what each held before a deployment", func(ctx context.Context, id string) (RolledBack, error) {
		made, left, err := f.Rollback(ctx, id)
		back := RolledBack{Deployments: []Deployment{}, Left: left}
		for _, d := range made {
			back.Deployments = append(back.Deployments, Deployment{Deployment: *d, SeedFor: Duration(d.SeedFor)})
		}
		slices.SortFunc(back.Deployments, func(a, b Deployment) int { return cmp.Compare(a.ID, b.ID) })
		return back, err
	}, made)
	addSteering(o, "close", "closeDeployment", "Give machines seen from now on no job of a deployment", func(ctx context.Context, id string) (Deployment, error) {
		if err := f.CloseDeployment(ctx, id); err != nil {
			return Deployment{}, err
		}
		d, err := o.deploymentOf(id)
		if err != nil {
			return Deployment{}, err
		}
		return d.Body, nil
	})
}
