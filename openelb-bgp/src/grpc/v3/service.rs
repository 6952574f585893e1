//! The service: one line for each call; what it does is in `calls`, and why some do nothing in `unserved`.

use tonic::{Request, Response, Status, Streaming};

use super::{
    Api,
    calls::{Boxed, empty},
    unserved,
};
use crate::grpc::apipb::{self, gobgp_api_server::GobgpApi};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GobgpApi for Api {
    async fn start_bgp(&self, request: Request<apipb::StartBgpRequest>) -> Answer<()> {
        self.start(request.into_inner()).await.map(Response::new)
    }

    async fn stop_bgp(&self, _: Request<apipb::StopBgpRequest>) -> Answer<()> {
        self.stop().await.map(Response::new)
    }

    async fn get_bgp(&self, _: Request<apipb::GetBgpRequest>) -> Answer<apipb::GetBgpResponse> {
        self.global().await.map(Response::new)
    }

    type WatchEventStream = Boxed<apipb::WatchEventResponse>;

    async fn watch_event(
        &self,
        request: Request<apipb::WatchEventRequest>,
    ) -> Answer<Self::WatchEventStream> {
        self.watch(request.into_inner()).await.map(Response::new)
    }

    async fn add_peer(&self, request: Request<apipb::AddPeerRequest>) -> Answer<()> {
        self.add_peer(request.into_inner()).await.map(Response::new)
    }

    async fn delete_peer(&self, request: Request<apipb::DeletePeerRequest>) -> Answer<()> {
        self.delete_peer(request.into_inner()).await.map(Response::new)
    }

    type ListPeerStream = Boxed<apipb::ListPeerResponse>;

    async fn list_peer(&self, request: Request<apipb::ListPeerRequest>) -> Answer<Self::ListPeerStream> {
        self.list_peers(request.into_inner()).await.map(Response::new)
    }

    async fn update_peer(
        &self,
        request: Request<apipb::UpdatePeerRequest>,
    ) -> Answer<apipb::UpdatePeerResponse> {
        self.update_peer(request.into_inner()).await.map(Response::new)
    }

    async fn reset_peer(&self, request: Request<apipb::ResetPeerRequest>) -> Answer<()> {
        self.reset_peer(request.into_inner()).await.map(Response::new)
    }

    async fn shutdown_peer(&self, request: Request<apipb::ShutdownPeerRequest>) -> Answer<()> {
        self.shut_down(request.into_inner()).await.map(Response::new)
    }

    async fn enable_peer(&self, request: Request<apipb::EnablePeerRequest>) -> Answer<()> {
        self.enable_peer(request.into_inner()).await.map(Response::new)
    }

    async fn disable_peer(&self, request: Request<apipb::DisablePeerRequest>) -> Answer<()> {
        self.disable_peer(request.into_inner()).await.map(Response::new)
    }

    async fn add_peer_group(&self, _: Request<apipb::AddPeerGroupRequest>) -> Answer<()> {
        self.unserved(unserved::GROUPS)
    }

    async fn delete_peer_group(&self, _: Request<apipb::DeletePeerGroupRequest>) -> Answer<()> {
        self.unserved(unserved::GROUPS)
    }

    type ListPeerGroupStream = Boxed<apipb::ListPeerGroupResponse>;

    async fn list_peer_group(
        &self,
        _: Request<apipb::ListPeerGroupRequest>,
    ) -> Answer<Self::ListPeerGroupStream> {
        Ok(Response::new(empty()))
    }

    async fn update_peer_group(
        &self,
        _: Request<apipb::UpdatePeerGroupRequest>,
    ) -> Answer<apipb::UpdatePeerGroupResponse> {
        self.unserved(unserved::GROUPS)
    }

    async fn add_dynamic_neighbor(&self, _: Request<apipb::AddDynamicNeighborRequest>) -> Answer<()> {
        self.unserved(unserved::GROUPS)
    }

    type ListDynamicNeighborStream = Boxed<apipb::ListDynamicNeighborResponse>;

    async fn list_dynamic_neighbor(
        &self,
        _: Request<apipb::ListDynamicNeighborRequest>,
    ) -> Answer<Self::ListDynamicNeighborStream> {
        Ok(Response::new(empty()))
    }

    async fn delete_dynamic_neighbor(&self, _: Request<apipb::DeleteDynamicNeighborRequest>) -> Answer<()> {
        self.unserved(unserved::GROUPS)
    }

    async fn add_path(&self, request: Request<apipb::AddPathRequest>) -> Answer<apipb::AddPathResponse> {
        self.add_path(request.into_inner()).await.map(Response::new)
    }

    async fn delete_path(&self, request: Request<apipb::DeletePathRequest>) -> Answer<()> {
        self.delete_path(request.into_inner()).await.map(Response::new)
    }

    type ListPathStream = Boxed<apipb::ListPathResponse>;

    async fn list_path(&self, request: Request<apipb::ListPathRequest>) -> Answer<Self::ListPathStream> {
        self.list_paths(request.into_inner()).await.map(Response::new)
    }

    async fn add_path_stream(&self, request: Request<Streaming<apipb::AddPathStreamRequest>>) -> Answer<()> {
        self.add_paths(request.into_inner()).await.map(Response::new)
    }

    async fn get_table(&self, request: Request<apipb::GetTableRequest>) -> Answer<apipb::GetTableResponse> {
        self.table_size(request.into_inner()).await.map(Response::new)
    }

    async fn add_vrf(&self, _: Request<apipb::AddVrfRequest>) -> Answer<()> {
        self.unserved(unserved::VRF)
    }

    async fn delete_vrf(&self, _: Request<apipb::DeleteVrfRequest>) -> Answer<()> {
        self.unserved(unserved::VRF)
    }

    type ListVrfStream = Boxed<apipb::ListVrfResponse>;

    async fn list_vrf(&self, _: Request<apipb::ListVrfRequest>) -> Answer<Self::ListVrfStream> {
        Ok(Response::new(empty()))
    }

    async fn add_policy(&self, _: Request<apipb::AddPolicyRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn delete_policy(&self, _: Request<apipb::DeletePolicyRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    type ListPolicyStream = Boxed<apipb::ListPolicyResponse>;

    async fn list_policy(&self, _: Request<apipb::ListPolicyRequest>) -> Answer<Self::ListPolicyStream> {
        Ok(Response::new(empty()))
    }

    async fn set_policies(&self, _: Request<apipb::SetPoliciesRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn add_defined_set(&self, _: Request<apipb::AddDefinedSetRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn delete_defined_set(&self, _: Request<apipb::DeleteDefinedSetRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    type ListDefinedSetStream = Boxed<apipb::ListDefinedSetResponse>;

    async fn list_defined_set(
        &self,
        _: Request<apipb::ListDefinedSetRequest>,
    ) -> Answer<Self::ListDefinedSetStream> {
        Ok(Response::new(empty()))
    }

    async fn add_statement(&self, _: Request<apipb::AddStatementRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn delete_statement(&self, _: Request<apipb::DeleteStatementRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    type ListStatementStream = Boxed<apipb::ListStatementResponse>;

    async fn list_statement(
        &self,
        _: Request<apipb::ListStatementRequest>,
    ) -> Answer<Self::ListStatementStream> {
        Ok(Response::new(empty()))
    }

    async fn add_policy_assignment(&self, _: Request<apipb::AddPolicyAssignmentRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn delete_policy_assignment(&self, _: Request<apipb::DeletePolicyAssignmentRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    type ListPolicyAssignmentStream = Boxed<apipb::ListPolicyAssignmentResponse>;

    async fn list_policy_assignment(
        &self,
        request: Request<apipb::ListPolicyAssignmentRequest>,
    ) -> Answer<Self::ListPolicyAssignmentStream> {
        self.policy_assignments(request.into_inner()).await.map(Response::new)
    }

    async fn set_policy_assignment(&self, _: Request<apipb::SetPolicyAssignmentRequest>) -> Answer<()> {
        self.unserved(unserved::POLICY)
    }

    async fn add_rpki(&self, _: Request<apipb::AddRpkiRequest>) -> Answer<()> {
        self.unserved(unserved::RPKI)
    }

    async fn delete_rpki(&self, _: Request<apipb::DeleteRpkiRequest>) -> Answer<()> {
        self.unserved(unserved::RPKI)
    }

    type ListRpkiStream = Boxed<apipb::ListRpkiResponse>;

    async fn list_rpki(&self, _: Request<apipb::ListRpkiRequest>) -> Answer<Self::ListRpkiStream> {
        Ok(Response::new(empty()))
    }

    async fn enable_rpki(&self, _: Request<apipb::EnableRpkiRequest>) -> Answer<()> {
        self.unserved(unserved::RPKI)
    }

    async fn disable_rpki(&self, _: Request<apipb::DisableRpkiRequest>) -> Answer<()> {
        self.unserved(unserved::RPKI)
    }

    async fn reset_rpki(&self, _: Request<apipb::ResetRpkiRequest>) -> Answer<()> {
        self.unserved(unserved::RPKI)
    }

    type ListRpkiTableStream = Boxed<apipb::ListRpkiTableResponse>;

    async fn list_rpki_table(
        &self,
        _: Request<apipb::ListRpkiTableRequest>,
    ) -> Answer<Self::ListRpkiTableStream> {
        Ok(Response::new(empty()))
    }

    async fn enable_zebra(&self, _: Request<apipb::EnableZebraRequest>) -> Answer<()> {
        self.unserved(unserved::ZEBRA)
    }

    async fn enable_mrt(&self, _: Request<apipb::EnableMrtRequest>) -> Answer<()> {
        self.unserved(unserved::MRT)
    }

    async fn disable_mrt(&self, _: Request<apipb::DisableMrtRequest>) -> Answer<()> {
        self.unserved(unserved::MRT)
    }

    async fn add_bmp(&self, _: Request<apipb::AddBmpRequest>) -> Answer<()> {
        self.unserved(unserved::BMP)
    }

    async fn delete_bmp(&self, _: Request<apipb::DeleteBmpRequest>) -> Answer<()> {
        self.unserved(unserved::BMP)
    }

    type ListBmpStream = Boxed<apipb::ListBmpResponse>;

    async fn list_bmp(&self, _: Request<apipb::ListBmpRequest>) -> Answer<Self::ListBmpStream> {
        Ok(Response::new(empty()))
    }

    async fn set_log_level(&self, _: Request<apipb::SetLogLevelRequest>) -> Answer<()> {
        self.unserved(unserved::LOG_LEVEL)
    }
}
