"""Goal environments by name: registration, construction and the checks that ODAC needs.

Nothing here imports Ray, and gymnasium-robotics is imported only for an environment that lives
there, so a process that trains on something else never pays for MuJoCo.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias, TypeVar

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rllib_odac.envs.actions import actions_of
from rllib_odac.envs.flatten import GOAL_KEYS, flatten, is_picture
from rllib_odac.envs.headless import gl_error, set_headless_gl
from rllib_odac.envs.threads import ThreadedVectorEnv
from rllib_odac.envs.time import show_time
from rllib_odac.envs.weights import weigh

EnvLike: TypeAlias = str | Callable[..., gym.Env[Any, Any]]
_Env = TypeVar("_Env", gym.Env[Any, Any], VectorEnv[Any, Any, Any])


# Entry points are strings: they import nothing until used and survive pickling to another process.
OWN_ENVS: dict[str, dict[str, Any]] = {
    "odac/Box2D-v0": {
        "entry_point": "rllib_odac.envs.box2d:Box2DEnv",
        "vector_entry_point": "rllib_odac.envs.box2d:Box2DVectorEnv",
        "max_episode_steps": 50,
    },
    "odac/Ant-v0": {
        "entry_point": "rllib_odac.envs.ant:AntEnv",
        "vector_entry_point": "rllib_odac.envs.ant_vector:AntVectorEnv",
        "max_episode_steps": 200,
        "disable_env_checker": True,
    },
    "odac/FetchPush-v0": {
        "entry_point": "rllib_odac.envs.fetch:FetchPushEnv",
        "max_episode_steps": 50,
        "disable_env_checker": True,
    },
    **{
        f"odac/{task}-v0": {
            "entry_point": f"rllib_odac.envs.sawyer:{task}Env",
            "max_episode_steps": 150,
            "disable_env_checker": True,
        }
        for task in ("SawyerFaucet", "SawyerWindow", "MetaWorldPush")
    },
    "odac/SawyerPush-v0": {
        "entry_point": "rllib_odac.envs.sawyer_push:SawyerPushEnv",
        "max_episode_steps": 100,
        "disable_env_checker": True,
    },
    "odac/MetaWorld-v0": {
        "entry_point": "rllib_odac.envs.metaworld:MetaWorldEnv",
        "max_episode_steps": 200,
        "disable_env_checker": True,
    },
    "odac/GridWorld-v0": {
        "entry_point": "rllib_odac.envs.grid_world:GridWorldEnv",
        "max_episode_steps": 50,
    },
    "odac/BitFlip-v0": {
        "entry_point": "rllib_odac.envs.bit_flip:BitFlipEnv",
        "max_episode_steps": 16,
    },
}

ROBOTICS = "gymnasium_robotics"
# Families of gymnasium-robotics whose observation is a Dict with the three keys, and those without.
ROBOTICS_GOAL_ENVS = ("Fetch", "AntMaze", "PointMaze", "HandReach", "HandManipulate")
ROBOTICS_ENVS = (*ROBOTICS_GOAL_ENVS, "AdroitHand", "FrankaKitchen")

INSTALL = {
    "metaworld": '"rllib-odac[sawyer]"',
    "gymnasium_robotics": "gymnasium-robotics",
    "mujoco": "mujoco",
}


def register_envs() -> None:
    """Register this package's environments with Gymnasium; calling it again does nothing."""
    for env_id, spec in OWN_ENVS.items():
        if env_id not in gym.registry:
            gym.register(env_id, **spec)


def known_env_ids() -> list[str]:
    """Ids of the goal environments that are installed, our own first.

    Of gymnasium-robotics the newest version of each is listed, without the "Dense" variants: they
    differ in the reward alone, which ODAC does not use.
    """
    register_envs()
    if not import_robotics():
        return list(OWN_ENVS)
    goal_envs = [env_id for env_id in _newest_versions() if env_id.startswith(ROBOTICS_GOAL_ENVS)]
    return [*OWN_ENVS, *sorted(e for e in goal_envs if "Dense-v" not in e)]


def make_env(
    env: EnvLike, render_mode: str | None = None, shows_time: bool = False, **kwargs: Any
) -> gym.Env[Any, Any]:
    """Make one goal environment.

    Args:
        env: an id such as "odac/Box2D-v0", "FetchReach-v4" or "module:FetchReach-v4", where the
            module is imported first, or a callable that returns an environment.
        render_mode: passed on if it is not None; "rgb_array" also calls `set_headless_gl`.
        shows_time: whether its `observation` ends with the time; see `show_time`.
        **kwargs: passed to the environment; for an id also `max_episode_steps`.

    Returns:
        The environment, with the checks of `check_goal_env` passed.

    Raises:
        ValueError: there is no such environment, a package of it is missing, it does not take the
            arguments, or it is no goal environment that ODAC can learn.
        RuntimeError: MuJoCo finds no OpenGL library to render with.
    """
    made = _checked(weigh(flatten(make_any_env(env, render_mode, **kwargs))), env_name(env))
    return show_time(made) if shows_time else made


def make_any_env(env: EnvLike, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make one environment, whether it has goals or not; otherwise as `make_env`."""
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    if render_mode == "rgb_array":
        set_headless_gl()
    name = env_name(env)
    with _explained(name, kwargs):
        made = gym.make(_registered(env), **kwargs) if isinstance(env, str) else _call(env, kwargs)
    if not isinstance(made, gym.Env):
        raise ValueError(f"{name} is no gymnasium.Env but of type {type(made).__name__}.")
    return made


def make_vector_env(
    env: EnvLike, num_envs: int, shows_time: bool = False, env_threads: int = 1, **kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Make `num_envs` copies of a goal environment that step together.

    An environment that registered a vector form of its own is made in that form if its autoreset is
    NEXT_STEP, as RLlib expects; any other one as a `SyncVectorEnv`, or with several threads as a
    `ThreadedVectorEnv`.

    Args:
        env: as for `make_env`.
        num_envs: number of copies.
        shows_time: as for `make_env`; no vector form of an environment's own shows it.
        env_threads: threads that step the copies; a vector form of an environment's own is told of
            them by `use_threads`, if it has that.
        **kwargs: as for `make_env`, `render_mode` among them.

    Returns:
        The vector environment, with the checks of `check_goal_env` passed.

    Raises:
        ValueError: as for `make_env`, or `num_envs` is below 1.
        RuntimeError: as for `make_env`.
    """
    if num_envs < 1:
        raise ValueError(f"A vector environment needs at least 1 environment, not {num_envs}.")
    name = env_name(env)
    with _explained(name, kwargs):
        if isinstance(env, str) and not shows_time:
            env_id = _registered(env)
            if gym.registry[env_id].vector_entry_point is not None:
                made = gym.make_vec(env_id, num_envs, **kwargs)
                if (mode := _autoreset(made)) == AutoresetMode.NEXT_STEP:
                    if env_threads > 1 and hasattr(made, "use_threads"):
                        made.use_threads(env_threads)
                    return _checked(made, name)
                made.close()
                if gym.registry[env_id].entry_point is None:
                    raise ValueError(
                        f"{name} has autoreset {mode.value}, but ODAC needs "
                        f"{AutoresetMode.NEXT_STEP.value}, or a form of a single environment."
                    )
        makers = [partial(make_env, env, shows_time=shows_time, **kwargs)] * num_envs
        if env_threads > 1:
            return ThreadedVectorEnv(makers, min(env_threads, num_envs))
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def check_goal_env(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], name: str) -> None:
    """Check from its spaces that ODAC can learn `env`, single or vector; steps nothing.

    Raises:
        ValueError: the observation is no Dict of vectors `observation`, `achieved_goal` and
            `desired_goal`, or of what `flatten` makes vectors of; the goals differ in shape, or
            `actions_of` refuses the actions.
    """
    observation = getattr(env, "single_observation_space", env.observation_space)
    action = getattr(env, "single_action_space", env.action_space)
    wanted = ", ".join(repr(key) for key in GOAL_KEYS)
    if not isinstance(observation, gym.spaces.Dict):
        raise ValueError(
            f"{name} carries no goals: its observations are a {type(observation).__name__} "
            f"instead of a Dict with {wanted}."
        )
    missing = [key for key in GOAL_KEYS if key not in observation.spaces]
    if missing:
        raise ValueError(
            f"{name} carries no goals: its observations have {_listed(observation.spaces)} "
            f"but not {_listed(missing)}."
        )
    for key in GOAL_KEYS:
        if is_picture(observation[key]):
            raise ValueError(
                f"{name} shows pictures: its {key!r} is {observation[key].shape} bytes, but must "
                "be a vector, for ODAC has no network that looks at pixels."
            )
        if not isinstance(observation[key], gym.spaces.Box):
            raise ValueError(
                f"{name} needs an adapter: its {key!r} is a {type(observation[key]).__name__} "
                "that is no vector and cannot be made one."
            )
    achieved, desired = observation["achieved_goal"].shape, observation["desired_goal"].shape
    if achieved != desired:
        raise ValueError(
            f"{name} has goals of two shapes: 'achieved_goal' is {achieved} "
            f"and 'desired_goal' is {desired}."
        )
    actions_of(action, name)


def env_name(env: EnvLike) -> str:
    """What to call an environment in messages.

    Raises:
        ValueError: `env` is neither an id nor a callable.
    """
    if isinstance(env, str):
        return env
    if not callable(env):
        raise ValueError(f"An environment is an id or a callable that makes one, not {env!r}.")
    return f"The environment made by {getattr(env, '__qualname__', repr(env))}"


def _autoreset(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How a vector environment begins its next episodes; NEXT_STEP if it does not say."""
    return AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


def _call(env: Callable[..., gym.Env[Any, Any]], kwargs: dict[str, Any]) -> Any:
    try:
        inspect.signature(env).bind(**kwargs)
    except TypeError as error:
        raise ValueError(f"{env_name(env)} cannot be made from {kwargs}: {error}.") from None
    except ValueError:  # a callable without a signature, from C
        pass
    return env(**kwargs)


def _checked(env: _Env, name: str) -> _Env:
    try:
        check_goal_env(env, name)
    except ValueError:
        env.close()  # type: ignore[no-untyped-call]
        raise
    return env


def _newest_versions() -> list[str]:
    """The registered ids, each in its newest version only."""
    newest: dict[tuple[str | None, str], tuple[int, str]] = {}
    for env_id, spec in gym.registry.items():
        key = (spec.namespace, spec.name)
        newest[key] = max(newest.get(key, (-1, "")), (spec.version or 0, env_id))
    return [env_id for _, env_id in newest.values()]


def _registered(name: str) -> str:
    """The id under which `name` can be made, after importing what registers it."""
    register_envs()
    module, _, env_id = name.rpartition(":")
    if module == ROBOTICS or (env_id not in gym.registry and env_id.startswith(ROBOTICS_ENVS)):
        import_robotics(required=True)
    elif module:
        importlib.import_module(module)
    if env_id in gym.registry:
        return env_id
    import_robotics()
    # People forget namespaces and versions, so compare without them too.
    names: dict[str, str] = {}
    for known in _newest_versions():
        names[known.lower()] = names[gym.registry[known].name.lower()] = known
    close = difflib.get_close_matches(env_id.lower(), names, n=6, cutoff=0.7)
    if matches := list(dict.fromkeys(names[key] for key in close))[:3]:
        raise ValueError(f"There is no environment {name!r}; did you mean {' or '.join(matches)}?")
    raise ValueError(
        f"There is no environment {name!r}; if another package registers it, "
        f"write 'its_module:{env_id}'."
    )


def import_robotics(required: bool = False) -> bool:
    """Import gymnasium-robotics without the notice about Adroit that it prints to stderr."""
    if sys.modules.get(ROBOTICS) is not None:
        return True
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            importlib.import_module(ROBOTICS)
    except Exception:
        if required:
            raise
        return False
    finally:
        kept = [line for line in printed.getvalue().splitlines(True) if "Adroit" not in line]
        sys.stderr.write("".join(kept))
    return True


@contextlib.contextmanager
def _explained(name: str, kwargs: dict[str, Any]) -> Iterator[None]:
    """Turn what goes wrong while making `name` from `kwargs` into one sentence for the user."""
    try:
        yield
    except (ModuleNotFoundError, gym.error.DependencyNotInstalled) as error:
        named = re.search(r"No module named '?(\w+)", str(error))
        package = (getattr(error, "name", None) or (named[1] if named else str(error))).split(".")[
            0
        ]
        how = f": pip install {INSTALL[package]}" if package in INSTALL else ""
        raise ValueError(
            f"{name} needs the package {package!r}, which is not installed{how}."
        ) from error
    except Exception as error:
        if (explanation := gl_error(error)) is not None:
            raise explanation from error
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and unexpected and unexpected[1] in kwargs:
            raise ValueError(f"{name} takes no argument {unexpected[1]!r}.") from error
        raise
