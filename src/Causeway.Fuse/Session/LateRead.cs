using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <summary>The reply to a READ that completes later but soon. One for each request slot that ever has such a READ.</summary>
internal sealed class LateRead : IValueTaskSource<int>
{
    private readonly FuseRequest _request;
    private readonly Action _onRead;
    private FuseSession? _session;
    private ValueTask<Result<int>> _read;
    private LateResult<int> _written;

    public LateRead(FuseRequest request)
    {
        _request = request;
        _onRead = Complete;
    }

    /// <summary>Begins.</summary>
    /// <param name="read">What is waited for.</param>
    /// <param name="session">Makes the reply.</param>
    /// <returns>How many bytes the reply has.</returns>
    public ValueTask<int> Begin(ValueTask<Result<int>> read, FuseSession session)
    {
        _written.Reset();
        _read = read;
        _session = session;
        ConfiguredValueTaskAwaitable<Result<int>>.ConfiguredValueTaskAwaiter awaiter = read.ConfigureAwait(false).GetAwaiter();
        awaiter.UnsafeOnCompleted(_onRead);
        return new ValueTask<int>(this, _written.Version);
    }

    int IValueTaskSource<int>.GetResult(short token) => _written.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource<int>.GetStatus(short token) => _written.GetStatus(token);

    void IValueTaskSource<int>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _written.OnCompleted(continuation, state, token);

    private void Complete()
    {
        ValueTask<Result<int>> read = _read;
        _read = default;
        _written.SetResult(_session!.ConcludeRead(_request, read));
    }
}
