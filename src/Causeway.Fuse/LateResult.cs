using System.Threading.Tasks.Sources;

namespace Causeway.Fuse;

/// <summary>
/// What an <see cref="IValueTaskSource{T}"/> consists of that completes once, is waited for by one, and is used again: nothing is
/// allocated, and whoever waits goes on at once, on the thread that sets the result or on the one that came too late to wait.
/// Never on a thread of the pool.
/// </summary>
/// <typeparam name="T">The result.</typeparam>
/// <remarks>A field of its owner, and never copied.</remarks>
public struct LateResult<T>
{
    private static readonly Action<object?> s_isThere = static _ => { };

    private Action<object?>? _continuation;
    private object? _state;
    private T _result;

    /// <summary>Which use this is.</summary>
    public short Version { get; private set; }

    /// <summary>Begins another use.</summary>
    public void Reset()
    {
        Version++;
        _continuation = null;
        _state = null;
        _result = default!;
    }

    /// <summary>Completes; whoever waits goes on before this returns. Nothing may be done with the source afterwards.</summary>
    /// <param name="result">The result.</param>
    public void SetResult(T result)
    {
        _result = result;
        // Both halves: who comes first leaves something, and who comes second goes on.
        if (Interlocked.Exchange(ref _continuation, s_isThere) is { } continuation)
        {
            continuation(_state);
        }
    }

    /// <summary>The result. Once, and only when it is there.</summary>
    /// <param name="token">Which use.</param>
    /// <exception cref="InvalidOperationException">It is not there, or was of another use.</exception>
    public readonly T GetResult(short token) => GetStatus(token) == ValueTaskSourceStatus.Succeeded
        ? _result
        : throw new InvalidOperationException("a result was asked for that is not there");

    /// <summary>Whether it is there.</summary>
    /// <param name="token">Which use.</param>
    /// <exception cref="InvalidOperationException">It was of another use.</exception>
    public readonly ValueTaskSourceStatus GetStatus(short token) => token != Version
        ? throw new InvalidOperationException("a result of another use was asked for")
        : Volatile.Read(in _continuation) == s_isThere
            ? ValueTaskSourceStatus.Succeeded
            : ValueTaskSourceStatus.Pending;

    /// <summary>Goes on when it is there. Once.</summary>
    /// <param name="continuation">What goes on.</param>
    /// <param name="state">With what.</param>
    /// <param name="token">Which use.</param>
    /// <exception cref="InvalidOperationException">It was of another use.</exception>
    public void OnCompleted(Action<object?> continuation, object? state, short token)
    {
        ArgumentNullException.ThrowIfNull(continuation);
        _ = GetStatus(token);
        _state = state;
        if (Interlocked.CompareExchange(ref _continuation, continuation, null) is not null)
        {
            continuation(state);
        }
    }
}
