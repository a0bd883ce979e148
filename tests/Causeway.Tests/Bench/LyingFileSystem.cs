#pragma warning disable CA2012 // The operations complete at once.
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Bench;

/// <summary>A share that is honest but for three things: sizes in GETATTR, what files contain, and that it writes.</summary>
internal sealed class LyingFileSystem(PassthroughFileSystem inner) : FuseFileSystem
{
    public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) => inner.InitializeAsync(negotiation);

    public override void Destroy() => inner.Destroy();

    public override void Forget(NodeId node, ulong lookupCount) => inner.Forget(node, lookupCount);

    public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context) =>
        inner.LookupAsync(parent, name, context);

    public override ValueTask<Result<FuseOpenOut>> OpenAsync(NodeId node, FuseOpenIn arguments, RequestContext context) =>
        inner.OpenAsync(node, arguments, context);

    public override ValueTask<Errno> ReleaseAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        inner.ReleaseAsync(node, arguments, context);

    public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(NodeId node, FuseGetAttrIn arguments, RequestContext context)
    {
        FuseAttrOut answer = inner.GetAttrAsync(node, arguments, context).Result.Value;
        answer.Attributes.Size++;
        return new(answer);
    }

    public override ValueTask<Result<int>> ReadAsync(
        NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) => new((int)arguments.Size);

    public override ValueTask<Result<int>> WriteAsync(
        NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context) => new((int)arguments.Size);
}
